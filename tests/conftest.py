"""What all tests share: the same random examples every time, one thread in each process, and no network.

On two cores, more threads than cores cost more than they give.
"""

import os

from hypothesis import settings

settings.register_profile("same every time", derandomize=True)
settings.load_profile("same every time")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
