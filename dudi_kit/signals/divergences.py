"""Divergences between the student's and the teacher's distribution of the next token, π and T, in nats.

A `Divergence` takes logits (student[..., V], teacher[..., V]) and gives [...]. Only the student gets a gradient: the
teacher is a constant. It computes in fp32, or in fp64 where an input has it. A piece with −inf logits has no mass and
adds 0 (0·log 0 = 0) to value and gradient. Where the second argument of a plain KL has no mass under the first's mass
the value is +inf, as it should be; the mixtures of JSD and of the skew KLs are always finite.

Each formula below is given both distributions and returns the value and the *pull* π·∂D/∂π, up to a multiple of π: with
π = softmax(z), ∂D/∂z = pull − π·Σ pull for any D. So the gradient costs one more pass and no autograd graph, and it
stays finite where differentiating through log 0 would give NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOWEST = -1e30
"""Stands for log 0: times a probability of 0 it is 0, where −inf would be NaN."""

BEYOND = 1e20
"""A value above it has met `LOWEST` under mass: it is infinite."""


class Both(NamedTuple):
    """Both models' distributions, [..., V] each."""

    log_student: Tensor
    student: Tensor
    log_teacher: Tensor
    teacher: Tensor


def both(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Both:
    """softmax(z/τ) of both, and its logarithm, in fp32 or better. The inputs stay as they are."""
    dtype = at_least_fp32(student_logits.dtype, teacher_logits.dtype)
    student, teacher = (_warm(z.to(dtype), temperature) for z in (student_logits, teacher_logits))
    # Softmax twice takes less time than the exponential of its logarithm.
    return Both(_logarithm(student), student.softmax(-1), _logarithm(teacher), teacher.softmax(-1))


def at_least_fp32(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype to compute in: float32, or float64 where an input has it."""
    widest = torch.float32
    for dtype in dtypes:
        widest = torch.promote_types(widest, dtype)
    return widest


Formula = Callable[[Both], tuple[Tensor, Tensor]]
"""Distributions → (D [...], pull [..., V], which is the caller's to change). It may use up `log_student`, since new
memory costs a CPU more than the arithmetic."""


@dataclass(frozen=True)
class Divergence:
    """D(π, T) at temperature 1: of logits, by calling it, or of distributions, by its formula."""

    formula: Formula

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """[..., V] twice → [...] in nats, differentiable in the student's logits."""
        assert student_logits.shape == teacher_logits.shape, (student_logits.shape, teacher_logits.shape)
        value: Tensor = _FromLogits.apply(student_logits, teacher_logits, self)  # type: ignore[no-untyped-call]
        return value

    def pulled(self, distributions: Both) -> tuple[Tensor, Tensor]:
        """Value [...] and pull [..., V]. `log_student` may be used up."""
        value, pull = self.formula(distributions)
        return value.masked_fill(value > BEYOND, torch.inf), pull


def _reverse_kl(d: Both) -> tuple[Tensor, Tensor]:
    pull = d.log_student.sub_(d.log_teacher).mul_(d.student)  # ∂D/∂π = log π − log T + 1
    return pull.sum(-1), pull


def _forward_kl(d: Both) -> tuple[Tensor, Tensor]:
    value = (d.log_teacher - d.log_student).mul_(d.teacher).sum(-1)
    return value, -d.teacher  # ∂D/∂π = −T/π


reverse_kl = Divergence(_reverse_kl)
"""KL(π‖T) = Σ π·(log π − log T): the student avoids what the teacher finds unlikely."""

forward_kl = Divergence(_forward_kl)
"""KL(T‖π) = Σ T·(log T − log π): the student covers what the teacher finds likely."""


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

    def formula(d: Both) -> tuple[Tensor, Tensor]:
        log_mixture = _mixture(d, beta).log_()
        from_teacher = (d.log_teacher - log_mixture).mul_(d.teacher).sum(-1)
        pull = log_mixture.neg_().add_(d.log_student).mul_(d.student)  # ∂D/∂π = (1−β)·(log π − log M)
        value = beta * from_teacher + (1 - beta) * pull.sum(-1)
        return value, pull.mul_(1 - beta)

    return Divergence(formula)


def skew_forward_kl(alpha: float) -> Divergence:
    """KL(T‖M) with M = α·T + (1−α)·π; α = 0 is forward KL. Source: DistiLLM (arXiv 2402.03898, section 3.1)."""
    if alpha == 0:
        return forward_kl
    _check_share("alpha", alpha)

    def formula(d: Both) -> tuple[Tensor, Tensor]:
        mixture = _mixture(d, alpha)
        value = (d.log_teacher - mixture.log()).mul_(d.teacher).sum(-1)
        pull = (d.student * (alpha - 1)).div_(mixture).mul_(d.teacher)  # ∂D/∂π = −(1−α)·T/M
        return value, pull

    return Divergence(formula)


def skew_reverse_kl(alpha: float) -> Divergence:
    """KL(π‖M) with M = (1−α)·T + α·π; α = 0 is reverse KL. Source: DistiLLM (arXiv 2402.03898, section 3.1)."""
    if alpha == 0:
        return reverse_kl
    _check_share("alpha", alpha)

    def formula(d: Both) -> tuple[Tensor, Tensor]:
        mixture = _mixture(d, 1 - alpha)
        share = (d.student * -alpha).div_(mixture)  # −α·π/M
        log_ratio = mixture.log_().neg_().add_(d.log_student)
        value = (log_ratio * d.student).sum(-1)
        return value, log_ratio.add_(share).mul_(d.student)  # ∂D/∂π = log π − log M + 1 − α·π/M

    return Divergence(formula)


def _mixture(d: Both, teacher_share: float) -> Tensor:
    """share·T + (1−share)·π, and the smallest number there is where neither has mass."""
    mixture = (d.student * (1 - teacher_share)).add_(d.teacher, alpha=teacher_share)
    return mixture.clamp_(min=torch.finfo(mixture.dtype).tiny)


def entropy_(log_distribution: Tensor, distribution: Tensor) -> Tensor:
    """H(p) = −Σ p·log p in nats; [..., V] twice → [...]. The logarithm is used up."""
    # Into memory that is there already. As a product of a row and a column it took MKL seventeen times as long.
    return -log_distribution.mul_(distribution).sum(-1)


def _warm(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1 else logits / temperature


def _logarithm(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1).clamp_(min=LOWEST)


def _check_share(name: str, share: float) -> None:
    if not 0 <= share < 1:
        raise ValueError(f"{name} is {share}: a share of a mixture lies between 0 and 1")


class _FromLogits(torch.autograd.Function):
    """Evaluates a formula on logits and computes the student's gradient, ∂D/∂z = pull − π·Σ pull, in the same pass."""

    @staticmethod
    def forward(ctx: Any, student_logits: Tensor, teacher_logits: Tensor, divergence: Divergence) -> Tensor:
        distributions = both(student_logits, teacher_logits)
        value, pull = divergence.pulled(distributions)
        if ctx.needs_input_grad[0]:
            ctx.dtype = student_logits.dtype
            ctx.save_for_backward(pull.addcmul_(distributions.student, pull.sum(-1, keepdim=True), value=-1))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (per_logit,) = ctx.saved_tensors
        return (grad.unsqueeze(-1) * per_logit).to(ctx.dtype), None, None
