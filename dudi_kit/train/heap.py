"""The C library's heap while we train on a CPU: what a step frees is there for the next one."""

import ctypes
import os

from dudi_kit.plan.memory import MAPPED

FREE = 2**27
"""Bytes that may lie free at the heap's end: more than a strip's temporaries take together. A gigabyte wins no more."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_heap() -> None:
    """Have glibc keep up to `FREE` bytes at the end of its heap.

    By itself it gives them back as soon as they exceed twice the largest block that had a mapping of its own, 64 MiB at
    most. Every strip's temporaries then are new pages, which cost a CPU more than the arithmetic (mallopt(3)). Nothing
    where the user has settings of their own, or the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    own = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if mallopt is not None and not own:
        mallopt(MMAP_THRESHOLD, MAPPED)  # where its own rule ends; setting one threshold stops that rule for both
        mallopt(TRIM_THRESHOLD, FREE)


def give_back() -> None:
    """Return what lies free in the heap, after something large has gone."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
