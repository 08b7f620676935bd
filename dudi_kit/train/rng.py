"""The random states of a process as tensors: torch, CUDA, NumPy and Python.

Rows, rollouts and the learning rate need none of them: they are functions of the step. Dropout and whatever else draws
inside a model does.
"""

import random

import numpy as np
import torch
from torch import Tensor


def random_states() -> dict[str, Tensor]:
    """The present states of this process, each as integers or bytes."""
    numpy_keys = np.random.get_state(legacy=False)
    python = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(numpy_keys["state"]["key"].astype(np.int64)),
        "numpy.position": torch.tensor([numpy_keys["state"]["pos"], numpy_keys["has_gauss"]]),
        "numpy.gauss": torch.tensor([numpy_keys["gauss"]], dtype=torch.float64),
        "python": torch.tensor([python[0], *python[1]], dtype=torch.int64),
        "python.gauss": torch.tensor([] if python[2] is None else [python[2]], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Tensor]) -> None:
    """Go on drawing where the process that saved them was."""
    torch.set_rng_state(states["torch"])
    position, has_gauss = states["numpy.position"].tolist()
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": states["numpy"].numpy().astype(np.uint32), "pos": position},
            "has_gauss": has_gauss,
            "gauss": states["numpy.gauss"].item(),
        }
    )
    version, *internal = states["python"].tolist()
    gauss = states["python.gauss"].tolist()
    random.setstate((version, tuple(internal), gauss[0] if gauss else None))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def seed_anew(seed: int, step: int, rank: int) -> None:
    """Where no saved state fits, since other processes saved: a stream of its own for each process and step."""
    mixed = int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)
