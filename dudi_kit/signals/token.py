"""The token signal: L_off on the corpus response and L_on on the student's own sample, with the same function."""

from functools import partial

import torch
from torch import Tensor

from dudi_kit.signals.chunks import chunked
from dudi_kit.signals.divergences import Divergence, entropy, reverse_kl
from dudi_kit.signals.result import SignalResult, Sums

TOP = 10
"""Likeliest pieces of each model that `top10_overlap` compares. A constant, so that runs can be compared."""


def token_signal(
    student_logits_BTV: Tensor,
    teacher_logits_BTV: Tensor,
    mask_BT: Tensor,
    divergence: Divergence,
    *,
    chunk: int | None = None,
) -> SignalResult:
    """Σ over the valid positions of a row of D(π, T), in nats; the count is their number.

    L_off: π(·|x,y<t) and T(·|x,y<t) (DuDi, arXiv 2606.04694). L_on: π(·|x,ỹ<t) and T(·|z,x,ỹ<t); no gradient goes
    through the sampling of ỹ. Position t of both sides predicts the same token: the caller has shifted and aligned.
    Positions outside the mask are never read. chunk: positions at a time, see `chunks`.

    Metrics, means over valid tokens, without gradient and at temperature 1 whatever the divergence is:
    `top1_agreement`: share where both models' likeliest piece is the same;
    `top10_overlap`: share of the teacher's ten likeliest pieces that are among the student's ten;
    `teacher_entropy` in nats;
    `reverse_kl`: KL(π‖T) in nats, so that runs with different divergences compare.
    """
    mask_BT = mask_BT.bool()
    over_valid = partial(chunked, logits=student_logits_BTV, other=teacher_logits_BTV, chunk=chunk, mask=mask_BT)
    divergence_N = over_valid(divergence)
    with torch.no_grad():
        agreement_N, overlap_N = over_valid(_agreement).unbind(-1)
        metrics_N = {
            "top1_agreement": agreement_N,
            "top10_overlap": overlap_N,
            "teacher_entropy": chunked(_entropy, teacher_logits_BTV, mask_BT, chunk, mask=mask_BT),
            "reverse_kl": divergence_N.detach() if divergence is reverse_kl else over_valid(reverse_kl),
        }
    per_row, count_B = partial(_per_row, mask_BT), mask_BT.sum(-1)
    return SignalResult(
        total_B=per_row(divergence_N),
        count_B=count_B,
        metrics={name: Sums(per_row(values_N), count_B) for name, values_N in metrics_N.items()},
    )


def _per_row(mask_BT: Tensor, values_N: Tensor) -> Tensor:
    """Adds up the values of the valid positions, which come in row-major order, row by row."""
    row_N = mask_BT.nonzero(as_tuple=True)[0]
    return values_N.new_zeros(len(mask_BT)).index_add(0, row_N, values_N)


def _agreement(student_logits_NV: Tensor, teacher_logits_NV: Tensor) -> Tensor:
    """[N, 2]: whether both put the same piece first, and which share of the teacher's `TOP` the student has in its own.

    A piece that is as likely as the student's last of the `TOP` counts as one of them: in bf16 such ties are common.
    """
    top = min(TOP, student_logits_NV.shape[-1])
    student, teacher = student_logits_NV.topk(top), teacher_logits_NV.topk(top)
    agrees_N = student.indices[:, 0] == teacher.indices[:, 0]
    shared_NK = student_logits_NV.gather(-1, teacher.indices) >= student.values[:, -1:]
    return torch.stack([agrees_N.float(), shared_NK.float().mean(-1)], dim=-1)


def _entropy(logits_NV: Tensor, _: Tensor) -> Tensor:
    return entropy(logits_NV)
