"""What a step frees is not given back to the system."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from dudi_kit.train.heap import keep_heap

def use():
    blocks = [torch.ones(2**21) for _ in range(8)]  # 8 MiB each, as a strip's temporaries

if {kept}:
    keep_heap()
use()
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_a_later_step_maps_few_new_pages():
    """64 MiB are 16,384 pages, mapped anew where nothing is kept; those of one block may be here, too."""
    program = [sys.executable, "-c", FAULTS.format(kept=True)]
    assert int(subprocess.run(program, capture_output=True, text=True, check=True).stdout) < 16_384 / 4
