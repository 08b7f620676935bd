"""What a step frees is not given back to the system, and what is large and has gone is."""

import ctypes
import os
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from dudi_kit.train.heap import keep_heap

def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2**21) for _ in range(8)]  # 8 MiB each, as a strip's temporaries
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

alone = [use() for _ in range(5)]
keep_heap()
kept = [use() for _ in range(5)]
print(max(alone[2:]), min(kept))
"""

GIVEN_BACK = """
import psutil
import torch
from dudi_kit.train.heap import give_back, keep_heap

keep_heap()
weights = [torch.ones(2**21) for _ in range(32)]  # 256 MiB, below a block that lasts
last = torch.ones(2**21)
held = psutil.Process().memory_info().rss
del weights
give_back()
print(held - psutil.Process().memory_info().rss)
"""

needs_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")


def said_by(program: str, **settings: str) -> list[int]:
    words = [sys.executable, "-c", program]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    said = subprocess.run(words, env=plain | settings, capture_output=True, text=True, check=True).stdout
    return list(map(int, said.split()))


@needs_glibc
@pytest.mark.parametrize("settings", [{}, {"MALLOC_ARENA_MAX": "2"}], ids=["none", "of something else"])
def test_a_later_step_maps_few_new_pages_whatever_else_of_malloc_is_set(settings):
    """Where a heap can grow no further glibc begins another one, so it may be a while until all blocks have a place. By
    itself it keeps them where something small lies behind them by chance, which another process shows."""
    for _ in range(4):
        given_back, kept = said_by(FAULTS, **settings)
        if given_back > 10_000:  # of 16,384 pages in 64 MiB
            assert kept < given_back / 4
            return
    pytest.skip("this system maps large pages, or keeps the heap by itself")


@needs_glibc
@pytest.mark.parametrize(
    "settings",
    [
        {"MALLOC_TRIM_THRESHOLD_": "1000000", "MALLOC_MMAP_THRESHOLD_": "1000000"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"},
    ],
    ids=["variables", "tunables"],
)
def test_thresholds_of_the_user_s_own_stay(settings):
    alone, with_ours = said_by(FAULTS, **settings)
    assert with_ours == pytest.approx(alone, rel=0.1)


@needs_glibc
def test_what_is_large_and_has_gone_is_given_back():
    assert said_by(GIVEN_BACK)[0] > 200 * 2**20
