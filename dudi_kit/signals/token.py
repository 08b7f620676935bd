"""The token signal: L_off on the corpus response and L_on on the student's own sample, with the same function."""

from functools import partial

import torch
from torch import Tensor

from dudi_kit.signals.chunks import chunked
from dudi_kit.signals.divergences import Divergence, entropy
from dudi_kit.signals.result import SignalResult, Sums


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

    Metrics, means over valid tokens: `top1_agreement` (share where both models' likeliest piece is the same) and
    `teacher_entropy` in nats, both at temperature 1.
    """
    mask_BT = mask_BT.bool()
    per_row = partial(_per_row, mask_BT)
    with torch.no_grad():
        agreement_N = chunked(_agreement, student_logits_BTV, teacher_logits_BTV, chunk, mask=mask_BT)
        entropy_N = chunked(_entropy, teacher_logits_BTV, mask_BT, chunk, mask=mask_BT)
    divergence_N = chunked(divergence, student_logits_BTV, teacher_logits_BTV, chunk, mask=mask_BT)
    return SignalResult(
        total_B=per_row(divergence_N),
        count_B=mask_BT.sum(-1),
        metrics={
            "top1_agreement": Sums(per_row(agreement_N), mask_BT.sum(-1)),
            "teacher_entropy": Sums(per_row(entropy_N), mask_BT.sum(-1)),
        },
    )


def _per_row(mask_BT: Tensor, values_N: Tensor) -> Tensor:
    """Adds up the values of the valid positions, which come in row-major order, row by row."""
    row_N = mask_BT.nonzero(as_tuple=True)[0]
    return values_N.new_zeros(len(mask_BT)).index_add(0, row_N, values_N)


def _agreement(student_logits_NV: Tensor, teacher_logits_NV: Tensor) -> Tensor:
    # max(...).indices is argmax, at a third of its time for bf16 on CPU
    return (student_logits_NV.max(-1).indices == teacher_logits_NV.max(-1).indices).float()


def _entropy(logits_NV: Tensor, _: Tensor) -> Tensor:
    return entropy(logits_NV)
