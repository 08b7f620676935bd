"""What tells weak students apart, where SEA-HELM's floor at 0 makes them all alike.

A model below a billion parameters is often at chance or below it, answers without a label, or in another language, or
never stops. Each of these is a figure of its own. The log-probability of the right answer and bits per byte complete
them; they need the model and are measured elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dudi_kit.errors import DataError
from dudi_kit.evaluate.seahelm.classification import above_chance
from dudi_kit.evaluate.seahelm.language import WrongLanguage, wrong_language
from dudi_kit.evaluate.seahelm.metrics import Rows, Scored


@dataclass(frozen=True)
class Weak:
    """A task in one language; rates in percent of its rows."""

    unfloored: float
    """The score that is aggregated, without a floor: negative where guessing would have done better."""

    raw_accuracy: float | None
    """Share of right answers, every row counting the same; None where answers are not right or wrong."""

    null_rate: float
    """Answers without a label, or without text."""

    truncation_rate: float
    """Answers cut at the longest length."""

    wrong_language: WrongLanguage | None
    """None where the answer is a label, which is in no language."""


def weak(rows: Rows, scored: Scored, truncated: Sequence[bool]) -> Weak:
    """truncated: of each response, whether it was cut."""
    count = len(rows.responses)
    if len(truncated) != count:
        raise DataError(f"{len(truncated):,} marks of truncation for {count:,} responses")
    return Weak(
        unfloored=_unfloored(rows, scored),
        raw_accuracy=_raw_accuracy(scored),
        null_rate=100 * sum(not answer for answer in scored.parsed) / count,
        truncation_rate=100 * sum(truncated) / count,
        wrong_language=_wrong_language(rows) if rows.labels is None else None,
    )


def _unfloored(rows: Rows, scored: Scored) -> float:
    if rows.labels is None:
        return scored.value
    return 100 * above_chance(scored.figures["accuracy"] / 100, len(rows.labels))


def _raw_accuracy(scored: Scored) -> float | None:
    if scored.metric == "balanced_accuracy":
        return sum(item or 0.0 for item in scored.items) / len(scored.items)
    return scored.figures.get("exact_match")


def _wrong_language(rows: Rows) -> WrongLanguage:
    return wrong_language(rows.responses, rows.answer_languages or [rows.language] * len(rows.responses))
