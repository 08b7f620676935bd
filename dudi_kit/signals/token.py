"""The token signal: L_off on the corpus response and L_on on the student's own sample, with the same function."""

from functools import partial

import torch
from torch import Tensor

from dudi_kit.signals.chunks import CHUNK_ELEMENTS, at_least_fp32, chunked
from dudi_kit.signals.divergences import Divergence, entropy, reverse_kl
from dudi_kit.signals.meeting import Meet
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
        observed_N3 = over_valid(_observed)
        reverse_kl_N = divergence_N if divergence is reverse_kl else over_valid(reverse_kl)
    return _result(mask_BT, divergence_N, observed_N3, reverse_kl_N)


def facing_signal(
    student_logits_BTV: Tensor,
    teacher_logits_BQV: Tensor,
    teacher_column_BT: Tensor,
    divergence: Divergence,
    meet: Meet,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> SignalResult:
    """The same between two vocabularies and two tokenisations, over the buckets in which their pieces meet.

    teacher_column_BT: the teacher's position that faces each of the student's; −1 where none does. divergence: at
    temperature 1; both models' logits are divided by the temperature before pieces are put together. The teacher's
    buckets are worked out once for each position, a chunk of its logits at a time, and kept: [positions, buckets].
    """
    mask_BT = teacher_column_BT >= 0
    number_BT = (mask_BT.flatten().cumsum(0) - 1).view_as(mask_BT)
    places = (mask_BT.nonzero(as_tuple=True)[0], teacher_column_BT[mask_BT])

    def over_valid(function: Divergence, told_NK: Tensor, temperature: float) -> Tensor:
        both = partial(_over_buckets, function, meet, told_NK, temperature)
        return chunked(both, student_logits_BTV, number_BT, chunk, mask=mask_BT)

    warm_NK = _told(teacher_logits_BQV, places, meet, temperature)
    divergence_N = over_valid(divergence, warm_NK, temperature)
    with torch.no_grad():
        told_NK = warm_NK if temperature == 1 else _told(teacher_logits_BQV, places, meet, 1.0)
        observed_N3 = over_valid(_observed, told_NK, 1.0)
        same = divergence is reverse_kl and temperature == 1
        reverse_kl_N = divergence_N if same else over_valid(reverse_kl, told_NK, 1.0)
    return _result(mask_BT, divergence_N, observed_N3, reverse_kl_N)


@torch.no_grad()
def _told(logits_BQV: Tensor, places: tuple[Tensor, Tensor], meet: Meet, temperature: float) -> Tensor:
    """The teacher's logits over buckets at these (row, column) places: [places, buckets]."""
    rows = max(1, CHUNK_ELEMENTS // logits_BQV.shape[-1])
    row_N, column_N = (torch.split(place, rows) for place in places)
    parts = (logits_BQV[part] for part in zip(row_N, column_N, strict=True))
    return torch.cat([meet.teacher(_at(temperature, part_NV)) for part_NV in parts])


def _over_buckets(
    function: Divergence, meet: Meet, told_NK: Tensor, temperature: float, student_NV: Tensor, number_N: Tensor
) -> Tensor:
    return function(meet.student(_at(temperature, student_NV)), told_NK[number_N])


def _at(temperature: float, logits_NV: Tensor) -> Tensor:
    return logits_NV if temperature == 1 else logits_NV.to(at_least_fp32(logits_NV.dtype)) / temperature


def _result(mask_BT: Tensor, divergence_N: Tensor, observed_N3: Tensor, reverse_kl_N: Tensor) -> SignalResult:
    """Sums by row."""
    agreement_N, overlap_N, entropy_N = observed_N3.unbind(-1)
    metrics_N = {
        "top1_agreement": agreement_N,
        "top10_overlap": overlap_N,
        "teacher_entropy": entropy_N,
        "reverse_kl": reverse_kl_N.detach(),
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


def _observed(student_logits_NV: Tensor, teacher_logits_NV: Tensor) -> Tensor:
    """[N, 3]: whether both put the same piece first, which share of the teacher's `TOP` the student has too, H(T).

    A piece that is as likely as the student's last of the `TOP` counts as one of them: in bf16 such ties are common.
    """
    top = min(TOP, student_logits_NV.shape[-1])
    student, teacher = student_logits_NV.topk(top), teacher_logits_NV.topk(top)
    agrees_N = student.indices[:, 0] == teacher.indices[:, 0]
    shared_NK = student_logits_NV.gather(-1, teacher.indices) >= student.values[:, -1:]
    entropy_N = entropy(teacher_logits_NV)
    return torch.stack([agrees_N.to(entropy_N.dtype), shared_NK.to(entropy_N.dtype).mean(-1), entropy_N], dim=-1)
