"""The run directory: what lies where, and how a file comes into being there.

Everything that a run writes goes through these names. A file that others rely on appears whole or not at all: it is
written beside its place, flushed to disk, and renamed.
"""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dudi_kit.errors import EnvironmentLack


@dataclass(frozen=True)
class RunDir:
    """Paths below one run directory."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe file as its author wrote it."""
        return self.path / "recipe.yaml"

    @property
    def resolved(self) -> Path:
        """The recipe with parents, overrides and defaults filled in."""
        return self.path / "recipe.resolved.json"

    @property
    def lock(self) -> Path:
        """Hashes of all that the result depends on."""
        return self.path / "lock.json"

    @property
    def frozen(self) -> Path:
        """The recipe's lock that a `--frozen` run was held to."""
        return self.path / "recipe.lock.json"

    @property
    def plan(self) -> Path:
        """What was decided before the run."""
        return self.path / "plan.json"

    @property
    def ds_config(self) -> Path:
        """DeepSpeed's configuration, as compiled from the recipe."""
        return self.path / "ds_config.json"

    @property
    def environment(self) -> Path:
        """Machine and package versions."""
        return self.path / "env.json"

    @property
    def ledger(self) -> Path:
        """What was dropped, cut or filtered, by language."""
        return self.path / "ledger.json"

    @property
    def asked(self) -> Path:
        """What the teacher wrote for this run's rows, a line for each answer."""
        return self.path / "asked.jsonl"

    @property
    def requests(self) -> Path:
        """What the teacher is yet to be asked for; there only until it was."""
        return self.path / "requests.jsonl"

    @property
    def tokenizer(self) -> Path:
        """The student's tokenizer with its chat template resolved."""
        return self.path / "tokenizer"

    @property
    def pruning(self) -> Path:
        """What a student that is cut from a bigger model keeps of it."""
        return self.path / "pruning.json"

    @property
    def pruned(self) -> Path:
        """That student before its first step, as a transformers folder."""
        return self.path / "pruned"

    @property
    def vocabulary(self) -> Path:
        """Tables of the vocabulary mapping, by the fingerprints of both tokenizers."""
        return self.path / "vocabulary"

    @property
    def logs(self) -> Path:
        """A log for each process."""
        return self.path / "logs"

    def failure(self, step: int, rank: int) -> Path:
        """Rows of one process in the step whose loss or gradient was no number."""
        return self.path / "failures" / f"step-{step}.rank-{rank}.jsonl"

    @property
    def metrics(self) -> Path:
        """One JSON line for each logged step."""
        return self.path / "metrics.jsonl"

    @property
    def trackers(self) -> Path:
        """The run's name with services that show metrics."""
        return self.path / "trackers.json"

    @property
    def checkpoints(self) -> Path:
        """Folders `step-N`."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Which step scored best while it trained, and where it lies."""
        return self.checkpoints / "best.json"

    @property
    def served(self) -> Path:
        """The student for a rollout server: configuration and tokenizer from the plan, weights from training."""
        return self.path / "served"

    @property
    def rollout_log(self) -> Path:
        """Some of the student's samples, one JSON line each."""
        return self.logs / "rollouts.jsonl"

    @property
    def profile(self) -> Path:
        """Where the time of a step went, if `--profile` asked for it."""
        return self.logs / "profile.json"

    @property
    def final(self) -> Path:
        """The trained student as a transformers folder. It is there exactly when training is complete."""
        return self.path / "final"

    @property
    def evaluation(self) -> Path:
        """Scores and answers."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def caches(self) -> Path:
        """Answers of frozen models, which all runs beside this one share."""
        return self.path.parent / ".cache"

    def complete(self) -> bool:
        """Training has finished."""
        return self.final.is_dir()


def read_lock(run: RunDir) -> str | None:
    """The lock hash of a run directory; None where there is none that can be read."""
    try:
        return str(json.loads(run.lock.read_text(encoding="utf-8"))["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):  # it may be the folder that can't be made
            partial.unlink(missing_ok=True)
        raise EnvironmentLack(f"can't write {path}: {error.strerror or error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; keys keep their order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to begin what the disk can't hold. needed: bytes."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise EnvironmentLack(
            f"no space for {purpose}: {folder} has {free / 1e9:,.2f} GB free and {needed / 1e9:,.2f} GB are needed. "
            "Free some, write elsewhere with --output, or keep fewer with training.keep_checkpoints."
        )
