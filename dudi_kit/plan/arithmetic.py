"""Batches and steps: how many rows meet where, and how often."""

import math
from typing import NamedTuple

from dudi_kit.errors import RecipeError
from dudi_kit.recipe.schema.training import Training

MOST_STEPS = 10**9


class Arithmetic(NamedTuple):
    """batch_size = processes × micro_batch_size × accumulation, always."""

    processes: int
    batch_size: int
    micro_batch_size: int
    accumulation: int
    rows_per_epoch: int
    steps: int


def split_batch(training: Training, processes: int) -> tuple[int, int]:
    """Rows of a micro-batch, and micro-batches of a process in a step; nothing but the recipe need be known.

    Raises RecipeError where the batch can't be split evenly, with the nearest sizes that can.
    """
    micro = training.micro_batch_size or max(training.batch_size // processes, 1)
    unit = processes * micro
    if training.batch_size % unit:
        below, above = training.batch_size // unit * unit, -(-training.batch_size // unit) * unit
        nearest = f"{below} or {above}" if below else f"{above}"
        raise RecipeError(
            f"training.batch_size: {training.batch_size} rows can't be split into {processes} processes × "
            f"{micro} rows (training.micro_batch_size); the nearest size that can is {nearest}."
        )
    return micro, training.batch_size // unit


def arithmetic(training: Training, *, rows_per_epoch: int, processes: int) -> Arithmetic:
    """Split the global batch over processes and accumulation steps, and count the steps; errors as `split_batch`."""
    micro, accumulation = split_batch(training, processes)
    steps = training.steps or (training.epochs or 1) * rows_per_epoch / training.batch_size
    if steps > MOST_STEPS:
        raise RecipeError(f"training.epochs: {training.epochs:g} epochs are more than {MOST_STEPS:,} steps; lower it.")
    steps = math.ceil(steps)
    return Arithmetic(processes, training.batch_size, micro, accumulation, rows_per_epoch, steps)
