"""The learning rate as a pure function of the step: nothing to save, so a resumed run can't get it wrong."""

import math

from dudi_kit.recipe.schema.training import Training


def learning_rate(training: Training, step: int, steps: int) -> float:
    """Learning rate of optimizer step `step` (from 0) out of `steps`: a linear rise, then the schedule's course."""
    rise = round(training.warmup * steps)
    if step < rise:
        return training.learning_rate * (step + 1) / (rise + 1)
    progress = (step - rise) / max(steps - rise, 1)
    shape = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
    return training.learning_rate * shape[training.schedule]
