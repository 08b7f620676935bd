"""Which of the teacher's tokens faces which of the student's, as numbers among the positions of each.

Where both have the same tokens, each faces itself. Elsewhere tokens that face one of the same meaning are compared by
their distributions, and spans by their likelihoods. Shape suffixes: N the student's tokens, S spans, F tokens in spans.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dudi_kit.recipe.schema.verbalizer import Term
from dudi_kit.train.positions import Positions
from dudi_kit.verbalizer.vocabulary.alignment import Columns
from dudi_kit.verbalizer.vocabulary.reading import Reading

ReadAs = Callable[[int, Term], Reading | None]
"""(number of the pair, term) → its response as the teacher reads it; None where it reads the student's own ids."""


class Spans(NamedTuple):
    """Stretches of which only the likelihoods can be compared, in the order of their first tokens."""

    pair_S: Columns
    of_S: list[Term]
    span_N: Columns
    """Number of the span that a student's token is in; −1 where in none."""

    teacher_F: Columns
    """The teacher's tokens that are in spans …"""

    span_F: Columns
    """… and in which."""

    def within(self, pairs: slice) -> slice:
        """Numbers of the spans of some pairs."""
        first, stop = np.searchsorted(self.pair_S, [pairs.start, pairs.stop])
        return slice(int(first), int(stop))


@dataclass(frozen=True)
class Facing:
    """Who faces whom in a micro-batch."""

    told_N: Columns
    """The teacher's token that faces the student's; −1 where none does."""

    spans: Spans | None
    """None where both have the same tokens."""


def facing(student: Positions, teacher: Positions, read_as: ReadAs) -> Facing:
    """Of a micro-batch. teacher: positions of the terms that it reads, which may be one of the student's two."""
    told_N = np.full(len(student), -1, dtype=np.int64)
    span_N = np.full(len(student), -1, dtype=np.int64)
    begins = {(segment.pair, segment.term): segment.place.start for segment in teacher.segments}
    pair_S: list[int] = []
    of_S: list[Term] = []
    tokens_S: list[Columns] = []
    apart = False
    for segment in student.segments:
        first = begins.get((segment.pair, segment.term))
        if first is None:
            continue
        reading, start = read_as(segment.pair, segment.term), segment.place.start
        if reading is None:
            told_N[segment.place] = np.arange(first, first + segment.place.stop - start)
            continue
        apart = True
        paired_F2, spans_S4, _ = reading.alignment
        told_N[start + paired_F2[:, 0]] = first + paired_F2[:, 1]
        for mine, mine_end, theirs, theirs_end in spans_S4.tolist():
            span_N[start + mine : start + mine_end] = len(pair_S)
            tokens_S.append(np.arange(first + theirs, first + theirs_end))
            pair_S.append(segment.pair)
            of_S.append(segment.term)
    if not apart:
        return Facing(told_N, None)
    return Facing(told_N, Spans(np.array(pair_S, dtype=np.int64), of_S, span_N, *_flat(tokens_S)))


def nobody(student: Positions) -> Facing:
    """No teacher."""
    return Facing(np.full(len(student), -1, dtype=np.int64), None)


def _flat(tokens_S: Sequence[Columns]) -> tuple[Columns, Columns]:
    lengths = [len(tokens) for tokens in tokens_S]
    flat = np.concatenate(tokens_S) if tokens_S else np.arange(0)
    return flat.astype(np.int64), np.repeat(np.arange(len(tokens_S)), lengths).astype(np.int64)
