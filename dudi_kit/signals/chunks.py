"""How many positions are worked on at a time. Two sizes, for two reasons.

A *chunk* is what the heads' products are taken of: large enough that the weights are not read too often, small enough
that its logits take little memory. A *strip* is what is computed with in fp32: it stays in the processor's cache, and
its handful of temporaries are the only ones there are.
"""

from collections.abc import Iterator

import torch

CHUNK_BYTES = 2**26
"""Logits of a chunk, of each model, in fp32: 110 positions at V = 151,936."""

HALF_CHUNK_BYTES = 2**27
"""In half precision: 441 positions. Each chunk's gradient of the weights is then added to a sum in fp32, which costs
as much however many positions it is of."""

STRIP_ELEMENTS = 2**21
"""Positions × vocabulary of a strip: 8 MiB for each fp32 temporary, 13 positions at V = 151,936."""


def chunk_positions(pieces: int, dtype: torch.dtype) -> int:
    """Positions of a chunk."""
    return max(1, chunk_bytes(dtype.itemsize) // (pieces * dtype.itemsize))


def group_positions(pieces: int, dtype: torch.dtype) -> int:
    """Positions of a chunk where some have to be judged together, as the two responses of a pair: half as many again.

    Of a group that is longer than a chunk the logits are computed twice.
    """
    return max(1, chunk_bytes(dtype.itemsize, grouped=True) // (pieces * dtype.itemsize))


def chunk_bytes(size: int, *, grouped: bool = False) -> int:
    """Of a chunk of logits of so many bytes each. grouped: some have to be judged together."""
    whole = CHUNK_BYTES if size > 2 else HALF_CHUNK_BYTES
    return whole * 3 // 2 if grouped else whole


def strips(place: slice, pieces: int) -> Iterator[slice]:
    """A slice in consecutive strips."""
    return parts(place, max(1, STRIP_ELEMENTS // pieces))


def even_parts(place: slice, size: int) -> Iterator[slice]:
    """As few consecutive slices of at most `size` as can be, all about as long, so that none is larger than need be."""
    length = max(1, place.stop - place.start)
    return parts(place, -(-length // -(-length // size)))


def parts(place: slice, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`."""
    return (slice(start, min(start + size, place.stop)) for start in range(place.start, place.stop, size))
