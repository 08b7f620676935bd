"""A divergence at another temperature, as a function of logits: what the token signal does with its two models."""

from collections.abc import Callable

from torch import Tensor

from dudi_kit.signals.divergences import Divergence, at_least_fp32


def with_temperature(divergence: Divergence, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """D(softmax(z/τ), softmax(t/τ)), with no τ² factor."""

    def tempered(student: Tensor, teacher: Tensor) -> Tensor:
        dtype = at_least_fp32(student.dtype, teacher.dtype)
        return divergence(student.to(dtype) / temperature, teacher.detach().to(dtype) / temperature)

    return tempered
