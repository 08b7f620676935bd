"""A divergence at another temperature, as a function of logits: what the token signal does with its two models."""

from collections.abc import Callable

from torch import Tensor

from dudi_kit.signals.divergences import Divergence


def with_temperature(divergence: Divergence, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """D(softmax(z/τ), softmax(t/τ)), with no τ² factor."""
    return lambda student, teacher: divergence(student / temperature, teacher.detach() / temperature)
