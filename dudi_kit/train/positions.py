"""The response tokens of a micro-batch in one row: pair after pair, y before ỹ.

All that is worked out here is known before a model is asked, and without it: lengths, numbers, who faces whom.
Shape suffix: N response tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dudi_kit.data.sending import sent
from dudi_kit.models.reading import Places
from dudi_kit.recipe.schema.verbalizer import Term
from dudi_kit.verbalizer.vocabulary.alignment import Columns

Said = Callable[[int, Term], Sequence[int]]
"""(number of the pair, term) → ids of its response."""


@dataclass(frozen=True)
class Segment:
    """One response."""

    pair: int
    term: Term
    place: slice
    """Its tokens."""


@dataclass(frozen=True)
class Positions:
    """Responses of both terms of a batch, or of one. Its batch has all rows of one term after those of the other."""

    segments: list[Segment]
    pairs: int
    row_N: Columns
    """Row in the batch."""

    column_N: Columns
    """Number in the response."""

    pair_N: Columns
    ids: list[int]

    def __len__(self) -> int:
        return len(self.row_N)

    def places(self, device: torch.device) -> Places:
        """For `models.reading`."""
        return Places(sent(self.row_N, device), sent(self.column_N, device))

    def of(self, term: Term) -> Iterator[Segment]:
        """The responses of a term, by pair."""
        return (segment for segment in self.segments if segment.term == term)

    def groups(self, size: int) -> Iterator[slice]:
        """Whole pairs, as many as fit into `size` tokens; one at least."""
        start = stop = 0
        for pair_start, pair_stop in self._pairs():
            if stop > start and pair_stop - start > size:
                yield slice(start, stop)
                start = pair_start
            stop = pair_stop
        yield slice(start, stop)

    def pairs_in(self, group: slice) -> slice:
        """Numbers of the pairs in a slice of whole pairs."""
        if group.stop == group.start:
            return slice(0, 0)
        return slice(int(self.pair_N[group.start]), int(self.pair_N[group.stop - 1]) + 1)

    def _pairs(self) -> Iterator[tuple[int, int]]:
        per_pair = len(self.segments) // self.pairs
        for first in range(0, len(self.segments), per_pair):
            yield self.segments[first].place.start, self.segments[first + per_pair - 1].place.stop


def positions_of(pairs: int, terms: Sequence[Term], said: Said) -> Positions:
    """Of the responses that are `said`; the batch has the terms' rows in this order."""
    segments: list[Segment] = []
    ids: list[int] = []
    rows: list[int] = []
    for pair in range(pairs):
        for number, term in enumerate(terms):
            response = said(pair, term)
            segments.append(Segment(pair, term, slice(len(ids), len(ids) + len(response))))
            rows.append(number * pairs + pair)
            ids.extend(response)
    lengths = [segment.place.stop - segment.place.start for segment in segments]
    return Positions(
        segments=segments,
        pairs=pairs,
        row_N=np.repeat(np.array(rows, dtype=np.int64), lengths),
        column_N=np.concatenate([np.arange(length) for length in lengths] or [np.arange(0)]).astype(np.int64),
        pair_N=np.repeat(np.array([segment.pair for segment in segments], dtype=np.int64), lengths),
        ids=ids,
    )


def padded(values_N: Tensor, positions: Positions, term: Term, pairs: slice) -> tuple[Tensor, Tensor]:
    """Values of a term's responses of some pairs as rows [b, R], 0 where there is no token, and the mask of tokens.

    values_N: of these pairs' tokens only. Differentiable.
    """
    some = [s for s in positions.of(term) if pairs.start <= s.pair < pairs.stop]
    first = min((s.place.start for s in positions.segments if s.pair == pairs.start), default=0)
    width = max((s.place.stop - s.place.start for s in some), default=0)
    index_bR = np.zeros((len(some), width), dtype=np.int64)
    mask_bR = np.zeros((len(some), width), dtype=bool)
    for row, segment in enumerate(some):
        length = segment.place.stop - segment.place.start
        index_bR[row, :length] = np.arange(segment.place.start, segment.place.stop) - first
        mask_bR[row, :length] = True
    mask = sent(mask_bR, values_N.device)
    if not len(values_N):
        return values_N.new_zeros(mask.shape), mask
    return values_N[sent(index_bR, values_N.device)].masked_fill(~mask, 0), mask
