"""A training process that counts where its third step reads a number off the device.

Started as `python -m tests.train.counted RUN`. On a GPU each such reading has the host wait for all that was started
before. Prints a JSON object: `reads`, function of ours (or of transformers' masks) → times; `samplings`, the number of
rows of each sampling call; `passes`, the number of the student's forward passes with gradient.
"""

import json
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dudi_kit.pipeline.during import make_scorer
from dudi_kit.train import loop, worker
from dudi_kit.train.rollouts import OwnSampler

COUNTED = 2  # from 0; the first ones make kernels and the optimizer's state
OPTIMIZER = "torch/optim/"  # it keeps its number of steps on the host


class Reads(TorchDispatchMode):
    """Counts `_local_scalar_dense`: what `item()`, `bool(tensor)` and `float(tensor)` come down to."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and (place := _place()):
            self.places[place] += 1
        return func(*args, **(kwargs or {}))


def _place() -> str | None:
    """The innermost function of transformers' masks or of ours."""
    frames = [(Path(frame.filename), frame.name) for frame in traceback.extract_stack()[::-1]]
    if any(OPTIMIZER in str(path) for path, _ in frames):
        return None
    known = ("dudi_kit/", "masking_utils.py")
    return next(f"{path.stem}.{name}" for path, name in frames if any(part in str(path) for part in known))


def counted(step: Any, reads: Reads, told: dict[str, Any]) -> Any:
    """The loop's step, of which one is watched."""
    sample = OwnSampler.sample

    def call(self: loop.Loop, number: int) -> None:
        if number != COUNTED:
            step(self, number)
            return

        def sampled(sampler: Any, model: Any, rows: Any, of_step: int) -> Any:
            told["samplings"].append(len(rows))
            return sample(sampler, model, rows, of_step)

        OwnSampler.sample = sampled  # type: ignore[method-assign]
        hook = self.models.student.register_forward_hook(lambda *_: told.update(passes=told["passes"] + 1))
        with reads:
            step(self, number)
        hook.remove()
        OwnSampler.sample = sample  # type: ignore[method-assign]

    return call


if __name__ == "__main__":
    reads, told = Reads(), {"samplings": [], "passes": 0}
    loop.Loop._step = counted(loop.Loop._step, reads, told)  # type: ignore[method-assign]
    code = worker.main(sys.argv[1:], make_scorer)
    sys.stdout.write(json.dumps(told | {"reads": reads.places}) + "\n")
    sys.exit(code)
