"""Read a run directory. Every file may be missing or damaged: what is not there is a note, never a failure.

What is looked for in the JSON files (all of it optional, the rest is shown as it is):

    recipe.resolved.json    the recipe with its defaults: name, description, teacher, student, evaluation.models
    plan.json               parameters, teacher_parameters, pruning
    env.json                began (ISO 8601), seconds, system, processes
    ledger.json             {event: {language: rows}}, as `Ledger.as_json` gives it: the training data
    evaluation/ledger.json  the same of tasks and held-out data
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dudi_kit.errors import RunDirectoryError
from dudi_kit.evaluate.contamination import FILE, Contamination, load_contamination
from dudi_kit.evaluate.harness_scores import RESULTS, HarnessScores, load_harness
from dudi_kit.evaluate.scores import AnswerRow, Scores, load_answers, load_scores
from dudi_kit.plan.schema import PlannedPruning
from dudi_kit.recipe.schema.evaluation import Subject
from dudi_kit.train.profile import Profile

SUBJECTS: tuple[Subject, ...] = ("teacher", "before", "after")

ROLLOUTS = "logs/rollouts.jsonl"
PROFILE = "logs/profile.json"
TEXTS = ("language", "prompt", "reference", "sample")
HARNESS = f"evaluation/{RESULTS}"
CONTAMINATION = f"evaluation/{FILE}"

T = TypeVar("T")


@dataclass
class RunFiles:
    """All that a report is made from."""

    folder: Path
    recipe_text: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    lock: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    ledger: dict[str, dict[str, int]] | None = None
    """{event: {language: rows}}; empty where nothing happened to any row, None where that is not known."""

    evaluation_ledger: dict[str, dict[str, int]] = field(default_factory=dict)
    contamination: Contamination | None = None
    """None where nothing was looked for."""

    harness: HarnessScores | None = None
    """What lm-eval measured; None where it was not asked."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    """Lines of metrics.jsonl, in the order of their steps."""

    profile: Profile | None = None
    """None where `--profile` did not ask for it."""

    rollouts: list[dict[str, Any]] = field(default_factory=list)
    """Lines of logs/rollouts.jsonl, in their order."""

    scores: dict[Subject, Scores] = field(default_factory=dict)
    answers: dict[Subject, list[AnswerRow]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What is missing or damaged, in words for the reader."""

    @property
    def pruning(self) -> PlannedPruning | None:
        """How the student was cut from a bigger model; None where it was not, or that can't be read."""
        try:
            return PlannedPruning.model_validate(self.plan.get("pruning"))
        except ValidationError:
            return None

    @property
    def name(self) -> str:
        """The run's name: the recipe's, else the folder's."""
        return str(self.recipe.get("name") or self.folder.resolve().name)


def read_run(folder: Path) -> RunFiles:
    """Read what is there and note what is not."""
    run = RunFiles(folder)
    run.recipe_text = _read(run, "recipe.yaml", "the recipe's own text", lambda path: path.read_text("utf-8"))
    run.recipe = _read(run, "recipe.resolved.json", "the recipe with its defaults", _mapping) or {}
    run.lock = _read(run, "lock.json", "revisions and hashes", _mapping) or {}
    run.plan = _read(run, "plan.json", "the plan", _mapping) or {}
    run.environment = _read(run, "env.json", "machine and versions", _mapping) or {}
    run.ledger = _read(run, "ledger.json", "dropped and cut rows", _ledger)
    run.evaluation_ledger = _read(run, "evaluation/ledger.json", "dropped rows of tasks", _ledger) or {}
    if (folder / CONTAMINATION).is_file():
        run.contamination = _read(run, CONTAMINATION, "overlap with the training text", load_contamination)
    if (folder / HARNESS).is_file():
        run.harness = _read(run, HARNESS, "scores of lm-eval", load_harness)
    run.steps = _read(run, "metrics.jsonl", "loss curves", lambda path: _read_steps(path, run.notes)) or []
    if (folder / ROLLOUTS).is_file():  # a run without samples has none
        run.rollouts = _read(run, ROLLOUTS, "the student's samples", lambda path: _read_rollouts(path, run.notes)) or []
    if (folder / PROFILE).is_file():
        run.profile = _read(run, PROFILE, "time of a step", lambda path: Profile.model_validate_json(path.read_bytes()))
    for subject in _expected(run):
        scores = _read(run, f"evaluation/{subject}.json", f"scores of {subject}", load_scores)
        answers = _read(run, f"evaluation/{subject}.answers.jsonl", f"answers of {subject}", load_answers)
        if scores is not None:
            run.scores[subject] = scores
        if answers is not None:
            run.answers[subject] = answers
    return run


def _expected(run: RunFiles) -> list[Subject]:
    """The models that the recipe wants evaluated, and those that were; all where neither is known."""
    evaluation = run.recipe.get("evaluation")
    wanted = evaluation.get("models") if isinstance(evaluation, Mapping) else None
    if not isinstance(wanted, list):
        return list(SUBJECTS)
    there = [subject for subject in SUBJECTS if (run.folder / "evaluation" / f"{subject}.json").is_file()]
    teacherless = "teacher" in run.recipe and run.recipe["teacher"] is None
    return [s for s in SUBJECTS if s in there or (s in wanted and not (s == "teacher" and teacherless))]


def _read(run: RunFiles, name: str, what: str, read: Callable[[Path], T]) -> T | None:
    path = run.folder / name
    if not path.is_file():
        run.notes.append(f"{name} is missing: {what}")
        return None
    try:
        return read(path)
    except (OSError, ValueError, RunDirectoryError) as error:
        run.notes.append(f"{name} can't be read ({what}): {error}")
        return None


def _mapping(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise RunDirectoryError(f"expected a JSON object, found {type(value).__name__}")
    return value


def _ledger(path: Path) -> dict[str, dict[str, int]]:
    table = _mapping(path)
    for event, by_language in table.items():
        counts = by_language.values() if isinstance(by_language, dict) else [None]
        if not all(isinstance(count, int) for count in counts):
            raise RunDirectoryError(f"expected {{language: count}} under {event!r}, found {by_language!r}")
    return table


def _read_steps(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl by step: its losses, and what the student scored after it. Of a step written twice
    (killed, then resumed) the later line counts."""
    steps: dict[int, dict[str, Any]] = {}
    bad: list[int] = []
    lines = path.read_text("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        step = _step(line)
        if step is None:
            bad.append(number)
        else:
            steps[step["step"]] = steps.get(step["step"], {}) | step
    if bad == [len(lines)]:
        notes.append(
            f"metrics.jsonl: the last line is cut off (the run was killed?); {len(lines) - 1:,} lines were read"
        )
    elif bad:
        first = ", ".join(map(str, bad[:5]))
        notes.append(f"metrics.jsonl: {len(bad):,} of {len(lines):,} lines can't be read; first: {first}")
    odd = [step for step, line in steps.items() if not _is_finite(line.get("loss", 0.0))]
    if odd:
        notes.append(f"metrics.jsonl: the loss is not a finite number at {len(odd):,} steps; first: step {min(odd):,}")
    return [steps[step] for step in sorted(steps)]


def _read_rollouts(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    lines = [_step(line) for line in path.read_text("utf-8", errors="replace").splitlines()]
    whole = [line for line in lines if line and all(isinstance(line.get(key), str) for key in TEXTS)]
    if len(whole) < len(lines):
        notes.append(f"{ROLLOUTS}: {len(lines) - len(whole):,} of {len(lines):,} lines can't be read")
    return whole


def _step(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("step"), int) else None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def series(steps: list[dict[str, Any]], *path: str) -> list[tuple[int, float]]:
    """(step, value) of a quantity that lies under `path` in each line; steps without a finite value are left out."""
    points: list[tuple[int, float]] = []
    for line in steps:
        value: Any = line
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if _is_finite(value):
            points.append((line["step"], float(value)))
    return points


def keys_at(steps: list[dict[str, Any]], *path: str) -> list[str]:
    """All keys that lie under `path` in any line, in the order in which they first appear."""
    found: dict[str, None] = {}
    for line in steps:
        value: Any = line
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping):
            found.update(dict.fromkeys(value))
    return list(found)
