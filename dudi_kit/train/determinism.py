"""`training.deterministic`: only algorithms that give the same bits every time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dudi_kit.errors import EnvironmentLack

WORKSPACE = ":4096:8"
"""Buffers of a fixed size for cuBLAS: without them its order of summing is free (its documentation, 'Results
reproducibility')."""

SIGN = "does not have a deterministic implementation"


@contextmanager
def determinism(*, wanted: bool) -> Iterator[None]:
    """Within it torch refuses what differs from run to run. Enter it before anything runs on a GPU.

    EnvironmentLack with the name of an operation that has no such algorithm here.
    """
    if not wanted:
        yield
        return
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACE
    before = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if SIGN not in str(error):
            raise
        operation = str(error).partition(SIGN)[0].strip()
        raise EnvironmentLack(
            f"training.deterministic: {operation} has no deterministic algorithm on this device with torch "
            f"{torch.__version__}. Set training.deterministic: false, or train on another device."
        ) from error
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = before
