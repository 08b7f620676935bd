"""Measured transfer: how near the student came to the teacher, by language and by what the teacher was shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dudi_kit.report.read import keys_at, series

OVERLAP, KL, MOVED, AT_HOME = "top10_overlap", "reverse_kl", "label_mass_moved", "label_mass_at_home"
FULL, SPAN = "coverage_full", "coverage_span"
"""Names of the metrics in metrics.jsonl; runs of before they were measured have neither, and no table."""


@dataclass(frozen=True)
class Ends:
    """A quantity at both ends of the training: the mean of the first and of the last tenth of its lines."""

    first: float
    last: float


@dataclass(frozen=True)
class TransferRow:
    """One language, or all; over every row, or over those with a demonstration of one source."""

    language: str
    source: str
    overlap: Ends | None
    kl: Ends | None


@dataclass(frozen=True)
class TransferTable:
    """What one signal measured."""

    signal: str
    sources: list[str]
    rows: list[TransferRow]


@dataclass(frozen=True)
class CoverageRow:
    """On how much of what was said the teacher had a word: shares of the response tokens, means over all lines."""

    language: str
    full: float
    """With a distribution of the next piece."""

    span: float
    """Inside spans, of which the likelihoods are compared."""

    @property
    def none(self) -> float:
        """Without a word of the teacher's."""
        return max(0.0, 1 - self.full - self.span)


@dataclass(frozen=True)
class MassRow:
    """Where the teacher's mass was at the first token of the rows that declare their labels; means over all lines."""

    language: str
    at_home: float
    """On words of the row's own language."""

    moved: float
    """On words of other languages, moved to the row's own."""

    @property
    def elsewhere(self) -> float:
        """On no word of the set, or on a word whose first piece does not tell it."""
        return max(0.0, 1 - self.at_home - self.moved)


ALL = "all"


def transfer_tables(steps: list[dict[str, Any]]) -> list[TransferTable]:
    """A table for each signal that asked the teacher; by source too where there was more than one."""
    signals = [name for name in keys_at(steps, "signals") if series(steps, "signals", name, "metrics", OVERLAP, ALL)]
    return [_table(steps, name) for name in signals]


def _table(steps: list[dict[str, Any]], signal: str) -> TransferTable:
    path = ("signals", signal, "metrics")
    sources = keys_at(steps, *path, OVERLAP, "by_source")
    parts = {ALL: (), **{source: ("by_source", source) for source in sources if len(sources) > 1}}
    languages = [*sorted(keys_at(steps, *path, OVERLAP, "by_language")), ALL]
    rows = []
    for language in languages:
        leaf = (ALL,) if language == ALL else ("by_language", language)
        for source, below in parts.items():
            overlap, kl = (_ends(series(steps, *path, name, *below, *leaf)) for name in (OVERLAP, KL))
            if overlap or kl:
                rows.append(TransferRow(language, source, overlap, kl))
    return TransferTable(signal, sources, rows)


def label_mass(steps: list[dict[str, Any]]) -> list[tuple[str, list[MassRow]]]:
    """(signal, its rows by language) for each signal in which label words moved mass."""
    tables = [(name, [MassRow(*row) for row in _means(steps, name, AT_HOME, MOVED)]) for name in _signals(steps)]
    return [(name, rows) for name, rows in tables if rows]


def coverage(steps: list[dict[str, Any]]) -> list[tuple[str, list[CoverageRow]]]:
    """(signal, its rows by language) for each signal between two vocabularies."""
    tables = [(name, [CoverageRow(*row) for row in _means(steps, name, FULL, SPAN)]) for name in _signals(steps)]
    return [(name, rows) for name, rows in tables if rows]


def _signals(steps: list[dict[str, Any]]) -> list[str]:
    return keys_at(steps, "signals")


def _means(steps: list[dict[str, Any]], signal: str, first: str, second: str) -> list[tuple[str, float, float]]:
    """(language, mean of the one metric, of the other), and at the end those of all languages."""
    path = ("signals", signal, "metrics")
    languages = sorted(keys_at(steps, *path, first, "by_language"))
    leaves: list[tuple[str, tuple[str, ...]]] = [(code, ("by_language", code)) for code in languages]
    leaves += [(ALL, (ALL,))] if languages else []
    return [
        (code, _mean(series(steps, *path, first, *leaf)), _mean(series(steps, *path, second, *leaf)))
        for code, leaf in leaves
    ]


def _mean(points: Sequence[tuple[int, float]]) -> float:
    return sum(value for _, value in points) / max(1, len(points))


def _ends(points: Sequence[tuple[int, float]]) -> Ends | None:
    if not points:
        return None
    values = [value for _, value in points]
    tenth = max(1, len(values) // 10)
    return Ends(sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth)
