"""logs/profile.json: where the time of a step went, summed up for each process, and the table that shows it.

Imports no torch, so that the report can read it.
"""

from collections.abc import Sequence
from statistics import fmean, median
from typing import Literal, NamedTuple, get_args

from pydantic import BaseModel, Field
from rich import box
from rich.table import Table
from rich.text import Text

Stage = Literal[
    "data",
    "rollout",
    "teacher",
    "reference",
    "student",
    "loss",
    "student backward",
    "signal gradients",
    "optimizer",
    "waiting",
    "evaluation",
    "log",
    "save",
    "other",
]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order of the tables."""

MEANINGS: dict[Stage, str] = {
    "data": "which rows, and their padded tensors",
    "rollout": "sampling, with what it takes to gather the student for it",
    "teacher": "the teacher's forward passes",
    "reference": "the reference's forward passes and log-probabilities, and its refreshing",
    "student": "the student's forward passes",
    "loss": "heads where they are computed chunk by chunk, signals, metrics, and gradients up to the hidden states",
    "student backward": "from the loss to the weights, with the reduction over processes where it runs meanwhile",
    "signal gradients": "measuring training.gradient_norms_every",
    "optimizer": "clipping and the update",
    "waiting": "for the other processes",
    "evaluation": "scoring during training",
    "log": "adding up and writing lines",
    "save": "checkpoints",
    "other": "what is left of the step",
}


class StepTime(NamedTuple):
    """One step of one process."""

    seconds: dict[Stage, float]
    """They add up to the step."""

    new_shapes: bool
    """Some model read a batch of a shape that it had not read before, for which kernels may have been made."""


class Spread(BaseModel):
    """Seconds of a step."""

    mean: float
    median: float


class Kind(BaseModel):
    """Steps of one kind."""

    steps: int
    stages: dict[Stage, Spread]
    """Without those that took no time at all. Their means add up to the step's."""

    step: Spread


class Rank(BaseModel):
    """What one process measured."""

    rank: int
    peak_bytes: int
    """Most that it held: of its GPU where it has one, else of main memory."""

    main: Kind
    """Steps of shapes that had been read before; all, where there is none."""

    new_shapes: Kind | None
    """The first steps, and those in which a batch was longer than all before; None where these are all."""

    @property
    def own(self) -> float:
        """Mean seconds of a step that it did not wait for others."""
        waiting = self.main.stages.get("waiting")
        return self.main.step.mean - (waiting.mean if waiting else 0.0)


class Profile(BaseModel):
    """All processes of one leg of a run."""

    name: str
    device: str
    first_step: int
    last_step: int
    ranks: list[Rank] = Field(min_length=1)

    @property
    def slowest(self) -> Rank:
        """The one that the others wait for."""
        return max(self.ranks, key=lambda rank: rank.own)


class Row(NamedTuple):
    """A line of the table: a stage, or the whole step."""

    stage: str
    mean: float
    share: float
    median: float
    new_shapes: float | None
    """Mean over the steps with new shapes, where they stand apart."""

    meaning: str


def summed_up(rank: int, steps: Sequence[StepTime], peak_bytes: int) -> Rank:
    """One process's steps, one at least, as means and medians."""
    new, usual = [s.seconds for s in steps if s.new_shapes], [s.seconds for s in steps if not s.new_shapes]
    apart = _kind(new) if new and usual else None
    return Rank(rank=rank, peak_bytes=peak_bytes, main=_kind(usual or new), new_shapes=apart)


def _kind(steps: Sequence[dict[Stage, float]]) -> Kind:
    by_stage = {stage: [step.get(stage, 0.0) for step in steps] for stage in STAGES}
    return Kind(
        steps=len(steps),
        stages={stage: _spread(seconds) for stage, seconds in by_stage.items() if any(seconds)},
        step=_spread([sum(step.values()) for step in steps]),
    )


def _spread(seconds: Sequence[float]) -> Spread:
    return Spread(mean=fmean(seconds), median=median(seconds))


def rows_of(rank: Rank) -> list[Row]:
    """One process's table; the last row is the step."""
    main, apart = rank.main, rank.new_shapes
    named = [stage for stage in STAGES if stage in main.stages or (apart and stage in apart.stages)]
    nothing = Spread(mean=0.0, median=0.0)
    rows = []
    for stage in named:
        spread = main.stages.get(stage, nothing)
        new = apart.stages.get(stage, nothing).mean if apart else None
        rows.append(Row(stage, spread.mean, spread.mean / main.step.mean, spread.median, new, MEANINGS[stage]))
    new = apart.step.mean if apart else None
    return [*rows, Row("step", main.step.mean, 1.0, main.step.median, new, "")]


def remarks(profile: Profile) -> list[str]:
    """What the table's numbers are of."""
    slowest = profile.slowest
    main, apart = slowest.main, slowest.new_shapes
    others = f"and {apart.steps:,} with new shapes" if apart else "all with new shapes"
    steps = f"steps {profile.first_step:,} to {profile.last_step:,} ({main.steps:,}, {others})"
    told = [f"{profile.device}, {steps}; peak memory {slowest.peak_bytes / 1e6:,.0f} MB"]
    if len(profile.ranks) > 1:
        fastest = min(rank.own for rank in profile.ranks)
        told.append(
            f"of rank {slowest.rank}, the slowest of {len(profile.ranks)} processes: {slowest.own:.3f} s of its own in "
            f"a step, the fastest {fastest:.3f} s"
        )
    return told


def profile_table(profile: Profile) -> Table:
    """The slowest process's table, for `Console.print`."""
    rows = rows_of(profile.slowest)
    apart = rows[-1].new_shapes is not None
    table = Table(
        title=Text(f"\n{profile.name}: seconds of a step"),
        title_justify="left",
        caption=Text("\n".join(remarks(profile))),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("stage")
    for head in ("mean", "share", "median", *(["new shapes, mean"] if apart else [])):
        table.add_column(head, justify="right")
    for row in rows:
        if row is rows[-1]:
            table.add_section()
        new = [] if row.new_shapes is None else [f"{row.new_shapes:.4f}"]
        table.add_row(row.stage, f"{row.mean:.4f}", f"{row.share:.1%}", f"{row.median:.4f}", *new)
    return table
