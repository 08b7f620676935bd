"""Numbers of few bits, packed without gaps; and ascending ids, of which small ones cost less.

All of it is done for many numbers at once: a loop over tokens would cost more than a small teacher's own pass.
Shape suffixes: M numbers, N tokens.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]

WIDEST = 32
"""Bits of the largest number."""

_WINDOW = 5
"""Bytes in which a number of up to 32 bits lies, wherever it begins in its first byte."""


def pack(values_M: Numbers, widths_M: Numbers) -> Bytes:
    """Numbers below 2^width, one after the other, the highest bit first."""
    ends_M = np.cumsum(widths_M)
    total = int(ends_M[-1]) if len(ends_M) else 0
    packed = np.zeros(-(-total // 8) + _WINDOW, dtype=np.int64)
    starts_M = ends_M - widths_M
    shifted_M = values_M << (8 * _WINDOW - (starts_M & 7) - widths_M)
    first_M = starts_M >> 3
    for lane in range(_WINDOW):
        part_M = (shifted_M >> (8 * (_WINDOW - 1 - lane))) & 0xFF
        # No two numbers share a bit, so that adding them up is putting them together.
        packed += np.bincount(first_M + lane, weights=part_M, minlength=len(packed)).astype(np.int64)
    return packed[: -(-total // 8)].astype(np.uint8)


def unpack(packed: Bytes, widths_M: Numbers) -> Numbers:
    """The numbers that `pack` wrote."""
    starts_M = np.cumsum(widths_M) - widths_M
    padded = np.concatenate([packed, np.zeros(_WINDOW, dtype=np.uint8)]).astype(np.int64)
    first_M = starts_M >> 3
    window_M = np.zeros(len(widths_M), dtype=np.int64)
    for lane in range(_WINDOW):
        window_M = (window_M << 8) | padded[first_M + lane]
    return (window_M >> (8 * _WINDOW - (starts_M & 7) - widths_M)) & ((1 << widths_M) - 1)


def pack_ids(ids_M: Numbers, counts_N: Numbers) -> tuple[Bytes, Bytes]:
    """Each token's ids, in ascending order: all bits of id + 1 but the first, and in unary how many those are.

    ids_M: of one token after the other. Small ids cost little, so the frequent pieces should have them. The numbers of
    bits ascend as the ids do: each is written as the difference to the one before, that many zeros and a one.
    """
    width_M = _width(ids_M)
    step_M = np.diff(width_M, prepend=0)
    first_M = np.cumsum(counts_N) - counts_N
    step_M[first_M] = width_M[first_M]
    unary = np.zeros(int((step_M + 1).sum()), dtype=np.uint8)
    unary[np.cumsum(step_M + 1) - 1] = 1
    return pack(ids_M + 1 - (1 << width_M), width_M), np.packbits(unary)


def unpack_ids(low: Bytes, unary: Bytes, counts_N: Numbers) -> Numbers:
    """The ids that `pack_ids` wrote, of one token after the other. ValueError: it did not write these."""
    ones_M = np.flatnonzero(np.unpackbits(unary))
    if len(ones_M) != counts_N.sum():
        raise ValueError("not as many ids as there should be")
    total_M = np.cumsum(np.diff(ones_M, prepend=-1) - 1)
    before_N = np.concatenate([[0], total_M])[np.cumsum(counts_N) - counts_N]
    width_M = total_M - np.repeat(before_N, counts_N)
    ids_M: Numbers = unpack(low, width_M) + (1 << width_M) - 1
    return ids_M


def _width(ids_M: Numbers) -> Numbers:
    """Bits of id + 1 after its first one."""
    _, exponent_M = np.frexp((ids_M + 1).astype(np.float64))
    return exponent_M.astype(np.int64) - 1
