"""What one model scored, as plain data that dumps to JSON. No torch, so that the report can read it cheaply.

Scores → task → language → metric. A score that could not be had is absent and listed in `Scores.missing` with the
reason; it is never 0, and a mean names the languages that it covers.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError, computed_field
from pydantic.dataclasses import dataclass as checked_dataclass

from dudi_kit.errors import RunDirectoryError
from dudi_kit.evaluate.seahelm.aggregate import Aggregates
from dudi_kit.evaluate.seahelm.weak import Weak
from dudi_kit.plan.layout import write_text
from dudi_kit.recipe.schema.evaluation import BITS as BITS
from dudi_kit.recipe.schema.task import Competency, TaskMetric


@dataclass(frozen=True)
class Unfloored:
    """What a score would be without a floor at 0."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class MetricScore:
    """One number with its uncertainty."""

    value: float
    """On a scale of 0 to 100."""

    interval: tuple[float, float] | None = None
    """95 % confidence interval of `value`, where the metric has one."""

    unit: str = "percent"
    unfloored: Unfloored | None = None
    """Where a floor cut the value or its interval: an interval from 0 to 0 would look like certainty."""


@dataclass(frozen=True)
class RightAnswer:
    """How likely the model finds the right answers, whatever it says: a student that can't answer yet may know."""

    nats: float
    """−log p, summed over the answers."""

    answers: int
    bytes: int
    """UTF-8 bytes of the answers."""

    @property
    def bits_per_byte(self) -> float:
        """Comparable between models on the same rows, as for the held-out text."""
        return self.nats / math.log(2) / self.bytes


@dataclass(frozen=True)
class LanguageScores:
    """A task in one language."""

    rows: int
    """Rows that were answered."""

    metrics: dict[str, MetricScore]
    null: int | None
    """Answers that are none of the task's labels, or hold no answer; None where a task of the recipe has no labels."""

    truncated: int
    """Answers cut at `max_new_tokens`."""

    empty: int
    """Answers without any text."""

    too_long: int = 0
    """Rows not answered because prompt and answer would not fit into the model's context."""

    figures: dict[str, float] = field(default_factory=dict)
    """Whatever else was measured, under SEA-HELM's names."""

    items_mean: float | None = None
    """Plain mean of what the rows are worth, in percent."""

    right_answer: RightAnswer | None = None
    weak: Weak | None = None
    """What a floor at 0 hides."""

    choices: int | None = None
    """Labels of the full set: guessing is right once in so many."""

    of_rows: int | None = None
    """Rows of the full set, of which a limit draws some."""

    seconds: float | None = None
    """That answering took; what was answered before an interruption does not count."""

    source: str = ""
    """Where the rows came from, and whose prompts these are."""

    data: dict[str, str] = field(default_factory=dict)
    """What rows, worked examples and SEA-HELM's prompts were read from: file → `sha256 …`, hub dataset → `commit …`."""


@dataclass(frozen=True)
class Mean:
    """Macro average: every language counts the same, whatever its number of rows."""

    value: float
    languages: list[str]
    """The languages that it covers; compare two means only where these agree."""


@dataclass(frozen=True)
class TaskFacts:
    """What a named task is and how it was asked."""

    task: str
    """Its name, which several entries of a recipe may share."""

    competency: Competency
    group: str | None
    metric: TaskMetric
    """What its score is made with."""

    mode: str
    scoring: str
    shots: int
    seahelm: str | None
    """The task's name in SEA-HELM."""


@dataclass(frozen=True)
class TaskScores:
    """A task in all its languages."""

    languages: dict[str, LanguageScores]
    mean: dict[str, Mean]
    about: TaskFacts | None = None
    """Of a named task."""


@checked_dataclass(frozen=True)
class BitsPerByte:
    """Surprise of a model at the reference responses of one language."""

    nats: float
    """Summed negative log-likelihood."""

    tokens: int
    """Response tokens, ends of turn included."""

    bytes: int
    """UTF-8 bytes of the responses."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def value(self) -> float:
        """Bits per byte: nats / ln 2 / bytes."""
        return self.nats / math.log(2) / self.bytes


@dataclass(frozen=True)
class Missing:
    """A score that could not be had."""

    task: str
    """Name of the task, or `bits per byte`."""

    language: str
    reason: str


@dataclass(frozen=True)
class Scores:
    """All that is known about one model."""

    tasks: dict[str, TaskScores]
    bits_per_byte: dict[str, BitsPerByte]
    bits_per_byte_mean: Mean | None
    missing: list[Missing]
    aggregates: list[Aggregates] = field(default_factory=list)
    """Means of the named tasks by competency and language, in each of SEA-HELM's two ways."""

    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    """The ledger of this evaluation: {event: {language: rows}}."""


@dataclass(frozen=True)
class AnswerRow:
    """One answer, with all that a person needs to judge it: a line of `evaluation/<who>.answers.jsonl`."""

    task: str
    language: str
    id: str
    """Where the row came from: `file:row (dataset)`."""

    prompt: str
    reference: str
    answer: str
    """As it was said; what was read out of it is `parsed`."""

    correct: bool | None
    """Whether answer and reference agree after normalisation; None where the task has no metric that asks for it."""

    null: bool | None
    truncated: bool
    tokens: int
    """Tokens of the answer, the end of turn not counted."""

    value: float | None = None
    """What the item adds to the task's score, from 0 to 100; None where a row has no value of its own."""

    stratum: str | None = None
    """The class that the item counts in, where the score is a mean over classes."""

    parsed: str | None = None
    """What was read out of the answer, where that is something else; None also where nothing was found."""


T = TypeVar("T")

_SCORES = TypeAdapter(Scores)
_ANSWER = TypeAdapter(AnswerRow)


def mean_of(values: dict[str, float]) -> Mean | None:
    """Macro average over the languages that have a value; None where none has."""
    return Mean(math.fsum(values.values()) / len(values), sorted(values)) if values else None


def save_scores(scores: Scores, path: Path) -> None:
    """Write `scores` as JSON: all of it or nothing."""
    write_text(path, _SCORES.dump_json(scores, indent=2).decode() + "\n")


def load_scores(path: Path) -> Scores:
    """Read what `save_scores` wrote; a damaged file is a RunDirectoryError."""
    return _parse(_SCORES, path.read_bytes(), str(path))


def save_answers(answers: Iterable[AnswerRow], path: Path) -> None:
    """Write one JSON object a line: all of them or nothing."""
    write_text(path, "".join(_ANSWER.dump_json(row).decode() + "\n" for row in answers))


def load_answers(path: Path) -> list[AnswerRow]:
    """Read what `save_answers` wrote; a damaged line is a RunDirectoryError."""
    lines: Sequence[bytes] = path.read_bytes().splitlines()
    return [_parse(_ANSWER, line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def _parse(adapter: TypeAdapter[T], data: bytes, where: str) -> T:
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "JSON"
        raise RunDirectoryError(
            f"{where}: damaged: {place}: {first['msg']}. Evaluate again: `dudi-kit evaluate RECIPE`"
        ) from error
