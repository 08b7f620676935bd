"""The token signal: L_off on the corpus response and L_on on the student's own sample, with the same function.

L_off: π(·|x,y<t) and T(·|x,y<t) (DuDi, arXiv 2606.04694). L_on: π(·|x,ỹ<t) and T(·|z,x,ỹ<t); no gradient goes through
the sampling of ỹ. Position n of both sides predicts the same token: the caller has shifted and aligned.
Shape suffixes: n positions, V vocabulary, K buckets.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dudi_kit.signals.divergences import Both, Divergence, at_least_fp32, both, entropy_, reverse_kl
from dudi_kit.signals.meeting import Meet

TOP = 10
"""Likeliest pieces of each model that `top10_overlap` compares. A constant, so that runs can be compared."""

BLOCK = 64
"""Pieces of which the largest is taken first, to find the likeliest ones without sorting the vocabulary."""

OBSERVED = ("top1_agreement", "top10_overlap", "teacher_entropy", "reverse_kl")
"""What is logged beside the loss, without gradient and at temperature 1 whatever the divergence is: share of tokens
where both models' likeliest piece is the same; share of the teacher's ten likeliest pieces that are among the student's
ten; the teacher's entropy in nats; KL(π‖T) in nats, so that runs with different divergences compare."""


class Compared(NamedTuple):
    """What a strip of positions says."""

    value_n: Tensor
    """D in nats, at the term's temperature."""

    observed_n4: Tensor
    """As `OBSERVED`."""

    grad_nV: Tensor
    """∂D/∂logits of the student, in fp32 or better; the caller's to change."""

    student_nV: Tensor | None = None
    """π at temperature 1 over all of the student's pieces, where it was made on the way."""


class Comparison(Protocol):
    """D between the student's logits and what the teacher says at the same positions."""

    def __call__(self, student_nV: Tensor, told_nV: Tensor) -> Compared:
        """student_nV: in fp32 or better, and left as it is."""
        ...


@dataclass(frozen=True)
class OverPieces:
    """Over the pieces that both models have, the first ones of both; those beyond are cut, on either side."""

    divergence: Divergence
    temperature: float = 1.0
    pieces: int | None = None
    """Default: all of them."""

    def __call__(self, student_nV: Tensor, told_nV: Tensor) -> Compared:
        """See `Comparison`."""
        student, told = student_nV[:, : self.pieces], told_nV[:, : self.pieces]
        warm = both(student, told, self.temperature)
        plain = warm if self.temperature == 1 else both(student, told)
        value_n, pull_nV = self.divergence.pulled(warm)
        observed_n4 = _observed(student, told, plain, value_n if self._is_plain else None)
        pull_nV.addcmul_(warm.student, pull_nV.sum(-1, keepdim=True), value=-1)
        if self.temperature != 1:
            pull_nV /= self.temperature
        cut = student_nV.shape[1] - pull_nV.shape[1]
        if cut:
            return Compared(value_n, observed_n4, torch.nn.functional.pad(pull_nV, (0, cut)))
        return Compared(value_n, observed_n4, pull_nV, plain.student)

    @property
    def _is_plain(self) -> bool:
        return self.divergence is reverse_kl and self.temperature == 1


@dataclass(frozen=True)
class OverBuckets:
    """Between two vocabularies: over the buckets in which their pieces meet. The temperature comes before these."""

    divergence: Divergence
    meet: Meet
    temperature: float = 1.0

    def __call__(self, student_nV: Tensor, told_nV: Tensor) -> Compared:
        """See `Comparison`."""
        told_nV = told_nV.to(at_least_fp32(told_nV.dtype))
        with torch.enable_grad():
            logits_nV = student_nV.detach().requires_grad_()
            mine_nK = self.meet.student(self._warm(logits_nV))
            value_n = self.divergence(mine_nK, self.meet.teacher(self._warm(told_nV)))
        (grad_nV,) = torch.autograd.grad(value_n, logits_nV, torch.ones_like(value_n))
        mine_nK = mine_nK.detach() if self.temperature == 1 else self.meet.student(student_nV)
        theirs_nK = self.meet.teacher(told_nV)
        return Compared(value_n.detach(), _observed(mine_nK, theirs_nK, both(mine_nK, theirs_nK)), grad_nV)

    def _warm(self, logits_nV: Tensor) -> Tensor:
        return logits_nV if self.temperature == 1 else logits_nV / self.temperature


def _observed(student_nV: Tensor, told_nV: Tensor, d: Both, reverse_kl_n: Tensor | None = None) -> Tensor:
    """[n, 4] as `OBSERVED`. reverse_kl_n: where it is known. The logarithms in `d` are used up.

    A piece that is as likely as the student's last of the `TOP` counts as one of them: in bf16 such ties are common.
    """
    top = min(TOP, student_nV.shape[-1])
    mine, theirs = _likeliest(student_nV, top), _likeliest(told_nV, top)
    least_n1 = student_nV.gather(-1, mine[:, -1:])
    kinds = d.log_student.dtype
    shared_n = (student_nV.gather(-1, theirs) >= least_n1).to(kinds).mean(-1)
    agrees_n = (mine[:, 0] == theirs[:, 0]).to(kinds)
    kl_n = reverse_kl.pulled(d)[0] if reverse_kl_n is None else reverse_kl_n
    return torch.stack([agrees_n, shared_n, entropy_(d.log_teacher, d.teacher), kl_n], dim=-1)


def _likeliest(logits_nV: Tensor, top: int) -> Tensor:
    """Numbers of the `top` largest, the largest first: [n, top].

    They lie in the `top` blocks with the largest maxima: one quick pass over all pieces, and few are sorted.
    """
    whole = logits_nV.shape[-1] // BLOCK
    if whole <= top:
        return logits_nV.topk(top).indices
    blocks_nBL = logits_nV[:, : whole * BLOCK].reshape(-1, whole, BLOCK)
    best_nT = blocks_nBL.amax(-1).topk(top).indices
    some_nTL = blocks_nBL.gather(1, best_nT[..., None].expand(-1, -1, BLOCK))
    number_nTL = best_nT[..., None] * BLOCK + torch.arange(BLOCK, device=logits_nV.device)
    rest = torch.arange(whole * BLOCK, logits_nV.shape[-1], device=logits_nV.device)
    some = torch.cat([some_nTL.flatten(1), logits_nV[:, whole * BLOCK :]], -1)
    number = torch.cat([number_nTL.flatten(1), rest.expand(len(logits_nV), -1)], -1)
    return number.gather(-1, some.topk(top).indices)
