"""From the host to the device, without waiting for it."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def sent(
    numbers: Tensor | NDArray[Any] | Sequence[Any] | float, device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """The numbers as a tensor on the device; where they lie there already, themselves.

    A copy that may block begins when a GPU has done all that it was asked before, and until then nothing of the next
    micro-batch can be prepared. This one is queued behind it: the driver has read the numbers when the call returns, so
    that they may change afterwards (CUDA's "API synchronization behavior", on memory that is not pinned).
    """
    return torch.as_tensor(numbers, dtype=dtype).to(device, non_blocking=True)
