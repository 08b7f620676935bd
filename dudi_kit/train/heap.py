"""The C library's heap while we train: what a step frees is there for the next one."""

import ctypes

from dudi_kit.plan.memory import MAPPED

FREE = 2**27
"""Bytes that may lie free at the heap's end: more than a strip's temporaries take together. A gigabyte wins no more."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_heap() -> None:
    """Have glibc keep up to `FREE` bytes at the end of its heap; nothing where the C library is another one.

    By itself it gives them back as soon as they exceed twice the largest block that had a mapping of its own. Every
    strip's temporaries then are new pages, which cost a CPU more than the arithmetic (mallopt(3)).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, MAPPED)  # where its own rule ends; setting one threshold stops that rule for both
        mallopt(TRIM_THRESHOLD, FREE)
