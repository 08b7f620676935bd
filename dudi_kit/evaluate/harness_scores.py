"""What lm-eval measured, as plain data in a file. No torch, so that the report can read it cheaply."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from dudi_kit.errors import RunDirectoryError
from dudi_kit.plan.layout import write_text

RESULTS = "lm_eval.json"
"""File in a run's evaluation/."""

Mode = Literal["instruct", "base"]
"""With the tokenizer's chat template around each prompt, or without."""


@dataclass(frozen=True)
class HarnessScore:
    """One number of lm-eval."""

    task: str
    metric: str
    """As lm-eval names it: metric and filter, such as `acc,none`."""

    value: float
    standard_error: float | None
    rows: int | None


@dataclass(frozen=True)
class HarnessScores:
    """What lm-eval measured of a model, and how it was asked."""

    version: str
    mode: Mode
    shots: int | None
    """None: as each task says."""

    model: str
    dtype: str
    limit: int | None
    """Rows of each task; None: all."""

    batch_size: int
    scores: list[HarnessScore]


_SCORES = TypeAdapter(HarnessScores)


def save_harness(scores: HarnessScores, path: Path) -> None:
    """Write as JSON: all of it or nothing."""
    write_text(path, _SCORES.dump_json(scores, indent=2).decode() + "\n")


def load_harness(path: Path) -> HarnessScores:
    """Read what `save_harness` wrote; a damaged file is a RunDirectoryError."""
    try:
        return _SCORES.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RunDirectoryError(f"{path}: damaged: {first['msg']}. Run lm-eval again.") from error
