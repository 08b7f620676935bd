"""What one process knows and all must act on, such as a request to stop, agreed on without waiting for a GPU.

A tensor on the device would join its queue: to read it the host waits for all that was started before, and the device
then for the host. Between hosts gloo carries it, beside the NCCL of the gradients.
"""

from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

Agree = Callable[[bool], bool]
"""Whether any process says yes. All must ask, and all get the same answer."""


def agreement(patience: timedelta) -> Agree:
    """Among the processes of the default group; every one must make it. patience: how long one waits for the others."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return bool
    hosts = dist.new_group(backend="gloo", timeout=patience)

    def any_says_yes(mine: bool) -> bool:
        said = torch.tensor(int(mine))
        dist.all_reduce(said, dist.ReduceOp.MAX, group=hosts)
        return bool(said)

    return any_says_yes
