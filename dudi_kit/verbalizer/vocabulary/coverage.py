"""How much of what the student says the teacher has a word on, by language."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dudi_kit.verbalizer.vocabulary.reading import Reading


class Shares(NamedTuple):
    """Shares of the student's response tokens."""

    full: float
    """With a distribution of the next piece."""

    span: float
    """Inside spans, of which the likelihoods are compared."""

    none: float
    """Without a word of the teacher's."""


Coverage = dict[str, Shares]
"""By language."""


def coverage_of(responses: Iterable[tuple[str, Sequence[int], Reading | None]]) -> Coverage:
    """responses: language, the student's tokens, and how the teacher reads them (None: just so)."""
    counts: dict[str, list[int]] = {}
    for language, tokens, reading in responses:
        count = counts.setdefault(language, [0, 0, 0])
        full = len(tokens) if reading is None else len(reading.alignment.paired_F2)
        span = 0 if reading is None else reading.alignment.in_spans
        for kind, number in enumerate((full, span, len(tokens) - full - span)):
            count[kind] += number
    return {code: Shares(*(number / max(sum(count), 1) for number in count)) for code, count in sorted(counts.items())}


def describe(coverage: Coverage) -> list[str]:
    """One line, unless all is covered."""
    if all(shares.full == 1 for shares in coverage.values()):
        return []
    by_language = ", ".join(f"{code} {shares.full:.1%} + {shares.span:.1%}" for code, shares in coverage.items())
    return [
        f"share of response tokens with the teacher's distribution + inside spans with its likelihood: {by_language}"
    ]
