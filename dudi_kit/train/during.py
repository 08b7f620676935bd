"""Scores of the student while it trains: when they are due, how all processes take them together, and the best so far.

What is asked and how it is scored is not this room's: a `Scorer` is handed in by the entry of the process
(`pipeline.worker`). A scoring leaves no trace in the training: no random number is drawn, no mode stays changed. What a
resumed run has to know stands in the manifest of its checkpoint: the last step that was scored, and the best one.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import nn

from dudi_kit.plan.layout import RunDir, write_json, write_text
from dudi_kit.train.rng import random_states, set_random_states

Told = Callable[[str], None]
"""Called now and then with how far a process is."""


class StepScores(NamedTuple):
    """What a student scored."""

    line: dict[str, Any]
    """For metrics.jsonl."""

    value: float | None
    """Of the score that picks the best step; None where it could not be had."""


class Scored(NamedTuple):
    """What came of a scoring."""

    is_best: bool
    """The best step so far."""

    left: bool
    """It was not finished, for the run is to stop."""


NOT_SCORED = Scored(is_best=False, left=False)
LEFT = Scored(is_best=False, left=True)


class Scorer(Protocol):
    """Asks a student and scores it."""

    @property
    def identity(self) -> str:
        """Tells the rows that are asked from others, whose scores are not comparable."""

    @property
    def best(self) -> str:
        """Name of the score that picks the best step."""

    @property
    def lower_is_better(self) -> bool:
        """Of that score."""

    def ask(self, student: Any, process: int, processes: int, told: Told) -> Any:
        """What the student says to this process's share of the rows."""

    def score(self, shares: Sequence[Any]) -> StepScores:
        """The scores of what all processes were told, in their order."""


@dataclass(frozen=True)
class Best:
    """The best step so far, and what it scored."""

    step: int
    value: float


@dataclass
class Watch:
    """When the student is scored, and what came of it so far. All processes know the same."""

    scorer: Scorer
    every: int
    steps: int
    """Of the whole run."""

    scored: int | None = None
    """The last step that was."""

    start: float | None = None
    """What the student scored before its first step."""

    best: Best | None = None
    """Of the steps after the start."""

    def is_due(self, done: int) -> bool:
        """Before the first step, after every so many, and after the last."""
        return done != self.scored and (done % self.every == 0 or done == self.steps)

    def note(self, done: int, scores: StepScores, seconds: float) -> tuple[dict[str, Any], Scored]:
        """Remember what was scored after `done` steps: the line of metrics.jsonl, and whether it is the best so far. Of
        equal steps the first one is."""
        self.scored = done
        better = Best(done, scores.value) if scores.value is not None and self._is_better(scores.value) else None
        if done == 0:
            self.start, better = scores.value, None
        self.best = better or self.best
        best = {"best": {"by": self.scorer.best, **asdict(self.best)}} if self.best else {}
        line = {"step": done, "evaluation": scores.line | best | {"seconds": seconds}}
        return line, Scored(is_best=better is not None, left=False)

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value < self.best.value if self.scorer.lower_is_better else value > self.best.value

    @property
    def state(self) -> dict[str, Any]:
        """For the manifest of a checkpoint."""
        best = asdict(self.best) if self.best else None
        return {
            "of": self.scorer.identity,
            "by": self.scorer.best,
            "scored": self.scored,
            "start": self.start,
            "best": best,
        }

    def go_on(self, run: RunDir, state: Mapping[str, Any] | None) -> str | None:
        """Know what a checkpoint knew; why not, where scores of before can't be compared or the best one is gone."""
        if state is None:
            return None
        if (state["of"], state["by"]) != (self.scorer.identity, self.scorer.best):
            return "other rows or another score than before pick the best step: what was scored before does not count"
        self.scored, self.start = state["scored"], state["start"]
        if state["best"] is not None:
            best = Best(**state["best"])
            if not (folder := run.checkpoints / f"step-{best.step}").exists():
                return f"the best step so far was {best.step}, and {folder} is gone: it does not count"
            self.best = best
        return None


def told_best(run: RunDir, watch: Watch) -> str | None:
    """Write down which step is the best and where it lies, in `checkpoints/best.json`; the same for people."""
    if watch.best is None:
        return None
    step, value = watch.best.step, watch.best.value
    folder = run.final if step == watch.steps else run.checkpoints / f"step-{step}"
    place = str(folder.relative_to(run.path))
    write_json(run.best, {"step": step, "score": watch.scorer.best, "value": value, "folder": place})
    start = f", {watch.start:.4g} before the first step" if watch.start is not None else ""
    return f"best step {step} of {watch.steps}: {watch.scorer.best} {value:.4g}{start}; it lies in {folder}"


@contextmanager
def at_rest(student: nn.Module) -> Iterator[None]:
    """Without dropout; afterwards every module is in its mode again, and draws what it would have drawn."""
    training, drawn = [module for module in student.modules() if module.training], random_states()
    student.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # or layers are compiled anew for shapes that training never has
            yield
    finally:
        for module in training:
            module.training = True
        set_random_states(drawn)


def scored_together(scorer: Scorer, mine: Any) -> StepScores:
    """The scores of what all processes heard, the same in each; made by the first. Every process must call it."""
    if not dist.is_initialized():
        return scorer.score([mine])
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, mine)
    made = [scorer.score(shares) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(made, 0)
    assert made[0] is not None, "the first process has sent it"
    return made[0]


def forget_scores(metrics: Path, step: int) -> None:
    """Drop the line with the scores of a step that is to be scored again."""
    if metrics.exists():
        lines = metrics.read_text(encoding="utf-8").splitlines()
        write_text(metrics, "".join(f"{line}\n" for line in lines if not _has_scores(json.loads(line), step)))


def _has_scores(line: Mapping[str, Any], step: int) -> bool:
    return "evaluation" in line and line["step"] == step
