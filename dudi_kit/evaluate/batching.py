"""Which rows are asked together."""

from collections.abc import Iterator, Sequence

LEAST_SHARE = 2 / 3
"""Of the longest row's length: shorter rows are padded so far that they cost more than a batch of their own. Attention
costs by the square of the padded length, and benchmarks have rows that are ten times as long as most."""

SHORT = 64
"""Tokens of padding that always cost less than another batch."""


def of_like_length(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places in `lengths`, at most `most` together, the longest first: lack of memory shows at once."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == most or lengths[place] < _least(lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _least(longest: int) -> float:
    return min(LEAST_SHARE * longest, longest - SHORT)
