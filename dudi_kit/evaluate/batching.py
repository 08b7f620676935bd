"""Which rows are asked together."""

from collections.abc import Iterator, Sequence

LEAST_SHARE = 2 / 3
"""Of the longest row's length: shorter rows are padded so far that they cost more than a batch of their own. Attention
costs by the square of the padded length, and benchmarks have rows that are ten times as long as most."""

SHORT = 64
"""Tokens of padding that always cost less than another batch."""


def of_like_length(lengths: Sequence[int], most: int, counts: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Places in `lengths`, at most `most` together, the longest first: lack of memory shows at once.

    counts: of what lies at each place, none more than `most`; default: 1.
    """
    counts = counts or [1] * len(lengths)
    batch: list[int] = []
    held = 0
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (held + counts[place] > most or lengths[place] < _least(lengths[batch[0]])):
            yield batch
            batch, held = [], 0
        batch.append(place)
        held += counts[place]
    if batch:
        yield batch


def _least(longest: int) -> float:
    return min(LEAST_SHARE * longest, longest - SHORT)
