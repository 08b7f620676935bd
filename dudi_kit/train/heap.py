"""The C library's heap in a training process: what a step frees is there for the next one."""

import ctypes
import os

from dudi_kit.plan.memory import MAPPED

FREE = 2**27
"""Bytes that may lie free at the heap's end: more than a strip's temporaries take together. A gigabyte wins no more."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
TUNABLES = ("glibc.malloc.trim_threshold", "glibc.malloc.mmap_threshold")
"""Where users set them. Other settings of malloc, as `MALLOC_ARENA_MAX` of many images, say nothing of these."""


def keep_heap() -> None:
    """Have glibc keep up to `FREE` bytes at the end of its heap.

    By itself it gives them back as soon as they exceed twice the largest block that had a mapping of its own, 64 MiB at
    most. Every strip's temporaries then are new pages, which cost a CPU more than the arithmetic (mallopt(3)). Nothing
    where the user has set one of the thresholds, or the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    tuned = os.environ.get("GLIBC_TUNABLES", "")
    own = any(name in os.environ for name in VARIABLES) or any(name in tuned for name in TUNABLES)
    if mallopt is not None and not own:
        mallopt(MMAP_THRESHOLD, MAPPED)  # where its own rule ends; setting one threshold stops that rule for both
        mallopt(TRIM_THRESHOLD, FREE)


def give_back() -> None:
    """Return what lies free in the heap, after something large has gone."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
