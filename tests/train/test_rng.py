"""What draws inside a model goes on where it was."""

import random

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from dudi_kit.train.rng import random_states, seed_anew, set_random_states


def draws() -> list[float]:
    return [
        *torch.rand(3).tolist(),
        *torch.nn.functional.dropout(torch.ones(8), 0.5).tolist(),
        *np.random.normal(size=3).tolist(),
        *(random.gauss(0, 1) for _ in range(3)),
        random.random(),
    ]


def test_every_generator_goes_on_where_it_was_saved(tmp_path):
    seed_anew(1, 2, 3)
    draws()  # an odd number of normal draws: NumPy and Python keep the other half of a pair
    save_file(random_states(), tmp_path / "random-0.safetensors")
    expected = draws()
    draws()
    set_random_states(load_file(tmp_path / "random-0.safetensors"))
    assert draws() == expected


def test_a_stream_of_its_own_for_each_process_and_step():
    streams = []
    for who in [(0, 4, 0), (0, 4, 1), (0, 5, 0), (1, 4, 0), (0, 4, 0)]:
        seed_anew(*who)
        streams.append(tuple(draws()))
    assert len(set(streams)) == 4
    assert streams[0] == streams[4]
