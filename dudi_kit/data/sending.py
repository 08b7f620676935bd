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

    An ordinary copy begins when a GPU has done all that it was asked before, and until then nothing of the next
    micro-batch can be prepared. From pinned memory it is queued behind that work. What is pinned here is a copy, so the
    numbers may change when this returns, unless they were pinned already; torch keeps it until the GPU has read it
    (PyTorch's tutorial on `pin_memory` and `non_blocking`).
    """
    here = torch.as_tensor(numbers, dtype=dtype)
    if here.device.type != "cpu":  # back to the host nothing is copied that somebody is about to read
        return here.to(device)
    if device.type == "cuda":
        here = here.pin_memory()
    return here.to(device, non_blocking=True)
