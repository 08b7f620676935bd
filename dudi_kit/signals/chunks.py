"""How many positions are worked on at a time. Two sizes, for two reasons.

A *chunk* is what the heads' products are taken of: large enough that the weights are not read too often, small enough
that its logits take little memory. A *strip* is what is computed with in fp32: it stays in the processor's cache, and
its handful of temporaries are the only ones there are.
"""

from collections.abc import Iterator

import torch

CHUNK_BYTES = 2**26
"""Logits of a chunk, of each model: 220 positions at V = 151,936 in bf16, 110 in fp32."""

STRIP_ELEMENTS = 2**21
"""Positions × vocabulary of a strip: 8 MiB for each fp32 temporary, 13 positions at V = 151,936."""


def chunk_positions(pieces: int, dtype: torch.dtype) -> int:
    """Positions of a chunk."""
    return max(1, CHUNK_BYTES // (pieces * dtype.itemsize))


def strips(place: slice, pieces: int) -> Iterator[slice]:
    """A slice in consecutive strips."""
    return parts(place, max(1, STRIP_ELEMENTS // pieces))


def parts(place: slice, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`."""
    return (slice(start, min(start + size, place.stop)) for start in range(place.start, place.stop, size))
