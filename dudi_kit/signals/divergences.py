"""Divergences between the student's and the teacher's distribution of the next token, π and T, in nats.

A `Divergence` takes logits (student[..., V], teacher[..., V]) and gives [...]. Only the student gets a gradient: the
teacher is a constant. It computes in fp32, or in fp64 where an input has it. A piece with −inf logits has no mass and
adds 0 (0·log 0 = 0) to value and gradient. Where the second argument of a plain KL has no mass under the first's mass
the value is +inf, as it should be; the mixtures of JSD and of the skew KLs are always finite.

Each formula below is given log π and log T and returns the value and the *pull* π·∂D/∂π, up to a multiple of π: with
π = softmax(z), ∂D/∂z = pull − π·Σ pull for any D. So the gradient costs one more pass and no autograd graph, and it
stays finite where differentiating through log 0 would give NaN. Four temporaries [..., V] (five for mixtures) are alive
at the peak, and one, the gradient, between forward and backward; `chunks.chunked` makes them a chunk's.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import log_softmax

from dudi_kit.signals.chunks import at_least_fp32

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(student_logits[..., V], teacher_logits[..., V]) → [...] in nats."""

_Formula = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(log π [..., V], log T [..., V]) → (D [...], pull [..., V])."""


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(π‖T) = Σ π·(log π − log T): the student avoids what the teacher finds unlikely. [..., V] twice → [...]."""
    return _divergence(_reverse_kl, student_logits, teacher_logits)


def forward_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(T‖π) = Σ T·(log T − log π): the student covers what the teacher finds likely. [..., V] twice → [...]."""
    return _divergence(_forward_kl, student_logits, teacher_logits)


def jsd(beta: float) -> Divergence:
    """β·KL(T‖M) + (1−β)·KL(π‖M) with M = β·T + (1−β)·π: generalised Jensen–Shannon divergence.

    The definition vanishes at both ends; by GKD's convention β = 0 is KL(T‖π) and β = 1 is KL(π‖T) instead, the limits
    of D/β and D/(1−β). Source: GKD (arXiv 2306.13649, equation 1), with these ends as in TRL's `generalized_jsd_loss`.
    """
    if beta == 0:
        return forward_kl
    if beta == 1:
        return reverse_kl
    _check_share("beta", beta)

    def formula(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        mixture = _log_mixture(teacher, beta, student)
        from_teacher = _weighted(teacher.exp(), teacher - mixture).sum(-1)
        pull = _weighted(student.exp(), student - mixture)  # ∂D/∂π = (1−β)·(log π − log M)
        value = beta * from_teacher + (1 - beta) * pull.sum(-1)
        return value, pull.mul_(1 - beta)

    return lambda student_logits, teacher_logits: _divergence(formula, student_logits, teacher_logits)


def skew_forward_kl(alpha: float) -> Divergence:
    """KL(T‖M) with M = α·T + (1−α)·π; α = 0 is forward KL. Source: DistiLLM (arXiv 2402.03898, section 3.1)."""
    if alpha == 0:
        return forward_kl
    _check_share("alpha", alpha)

    def formula(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        mixture = _log_mixture(teacher, alpha, student)
        mass = teacher.exp()
        value = _weighted(mass, teacher - mixture).sum(-1)
        share = (student + math.log1p(-alpha)).sub_(mixture).exp_()  # of the student in the mixture: (1−α)·π/M
        return value, _weighted(mass, share).neg_()  # ∂D/∂π = −(1−α)·T/M

    return lambda student_logits, teacher_logits: _divergence(formula, student_logits, teacher_logits)


def skew_reverse_kl(alpha: float) -> Divergence:
    """KL(π‖M) with M = (1−α)·T + α·π; α = 0 is reverse KL. Source: DistiLLM (arXiv 2402.03898, section 3.1)."""
    if alpha == 0:
        return reverse_kl
    _check_share("alpha", alpha)

    def formula(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio = student - _log_mixture(teacher, 1 - alpha, student)
        mass = student.exp()
        share = (log_ratio + math.log(alpha)).exp_()  # of the student in the mixture: α·π/M
        pull = _weighted(mass, share.neg_().add_(log_ratio))  # ∂D/∂π = log π − log M + 1 − α·π/M
        return _weighted(mass, log_ratio).sum(-1), pull

    return lambda student_logits, teacher_logits: _divergence(formula, student_logits, teacher_logits)


def with_temperature(divergence: Divergence, temperature: float) -> Divergence:
    """The divergence of softmax(z/τ) for both models, with no τ² factor; costs two more temporaries [..., V]."""
    if temperature == 1:
        return divergence
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: it must be above 0")

    def tempered(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        dtype = at_least_fp32(student_logits.dtype, teacher_logits.dtype)
        return divergence(student_logits.to(dtype) / temperature, teacher_logits.detach().to(dtype) / temperature)

    return tempered


def entropy(logits: Tensor) -> Tensor:
    """H(p) = −Σ p·log p in nats; [..., V] → [...]. No gradient."""
    log_p = log_softmax(logits.detach(), dim=-1, dtype=at_least_fp32(logits.dtype))
    return -_weighted(log_p.exp(), log_p).sum(-1)


def _reverse_kl(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    pull = _weighted(student.exp(), student - teacher)  # ∂D/∂π = log π − log T + 1
    return pull.sum(-1), pull


def _forward_kl(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    mass = teacher.exp()
    value = _weighted(mass, teacher - student).sum(-1)
    return value, mass.neg_()  # ∂D/∂π = −T/π


def _log_mixture(teacher: Tensor, teacher_share: float, student: Tensor) -> Tensor:
    """log(share·T + (1−share)·π), −inf where neither has mass."""
    return torch.logaddexp(teacher + math.log(teacher_share), student + math.log1p(-teacher_share))


def _weighted(mass: Tensor, factor: Tensor) -> Tensor:
    """mass·factor, and 0 where there is no mass, whatever the factor. Overwrites `factor`, a temporary."""
    return factor.mul_(mass).masked_fill_(mass == 0, 0)


def _check_share(name: str, share: float) -> None:
    if not 0 <= share < 1:
        raise ValueError(f"{name} is {share}: a share of a mixture lies between 0 and 1")


def _divergence(formula: _Formula, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    assert student_logits.shape == teacher_logits.shape, (student_logits.shape, teacher_logits.shape)
    value: Tensor = _FromLogits.apply(student_logits, teacher_logits, formula)  # type: ignore[no-untyped-call]
    return value


class _FromLogits(torch.autograd.Function):
    """Evaluates a formula on logits and computes the student's gradient, ∂D/∂z = pull − π·Σ pull, in the same pass."""

    @staticmethod
    def forward(ctx: Any, student_logits: Tensor, teacher_logits: Tensor, formula: _Formula) -> Tensor:
        dtype = at_least_fp32(student_logits.dtype, teacher_logits.dtype)
        student = log_softmax(student_logits, dim=-1, dtype=dtype)
        value, pull = formula(student, log_softmax(teacher_logits, dim=-1, dtype=dtype))
        if ctx.needs_input_grad[0]:
            ctx.dtype = student_logits.dtype
            ctx.save_for_backward(pull.addcmul_(student.exp_(), pull.sum(-1, keepdim=True), value=-1))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (per_logit,) = ctx.saved_tensors
        return (grad.unsqueeze(-1) * per_logit).to(ctx.dtype), None, None
