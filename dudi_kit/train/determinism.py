"""`training.deterministic`: only algorithms that give the same bits every time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import pad

from dudi_kit.errors import EnvironmentLack

WORKSPACE = ":4096:8"
"""Buffers of a fixed size for cuBLAS: without them its order of summing is free (its documentation, 'Results
reproducibility')."""

BLOCK = 512
"""Values that are summed in one product."""

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


def running_sum(values_BV: Tensor) -> Tensor:
    """`cumsum` over the last dimension in float64; CUDA's is refused where only deterministic algorithms are wanted."""
    if torch.are_deterministic_algorithms_enabled():
        return _running_sum_in_blocks(values_BV.double())
    return values_BV.cumsum(-1, dtype=torch.float64)


def _running_sum_in_blocks(values_BV: Tensor) -> Tensor:
    """Within blocks a product with a triangle of ones; then, in the same way, over the sums of the blocks before."""
    width = values_BV.shape[-1]
    side = min(width, BLOCK)
    triangle = torch.ones(side, side, dtype=values_BV.dtype, device=values_BV.device).triu()
    blocks = pad(values_BV, (0, -width % side)).reshape(*values_BV.shape[:-1], -1, side) @ triangle
    if blocks.shape[-2] == 1:
        return blocks.squeeze(-2)
    before = pad(_running_sum_in_blocks(blocks[..., -1])[..., :-1], (1, 0))
    return (blocks + before[..., None]).flatten(-2)[..., :width]
