"""Two models with different vocabularies, compared over the pieces that mean the same and one bucket for all the rest.

Shape suffixes: N positions, V a vocabulary, K buckets, E further pieces of a bucket, R the rest. Since both
distributions are compared over coarser events, a KL over buckets never exceeds that over texts ("coarse-graining").
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from dudi_kit.signals.divergences import at_least_fp32


class Meet(NamedTuple):
    """Both sides' logits, [N, V] and [N, V'], as logits over the same K or K+1 buckets."""

    student: Callable[[Tensor], Tensor]
    teacher: Callable[[Tensor], Tensor]


class Buckets(NamedTuple):
    """One side's pieces by bucket. Pieces in none of these are cut: they have no mass."""

    first_K: Tensor
    """A piece of each bucket."""

    more_E: Tensor
    """Further pieces, whose mass is added to a bucket …"""

    bucket_E: Tensor
    """… and to which."""

    rest_R: Tensor
    """Pieces that are one last bucket together; where there are none there is no such bucket."""

    def to(self, device: torch.device) -> "Buckets":
        """On another device."""
        return Buckets(*(part.to(device) for part in self))


def bucket_logits(logits_NV: Tensor, buckets: Buckets) -> Tensor:
    """log Σ exp(logit) of each bucket, the rest as the last one: [N, K] or [N, K+1], fp32 or better, differentiable.

    Their softmax is the mass of each bucket among all pieces that are not cut. The mass of the rest is a sum over its
    pieces, not one minus the others', so that it is exact where it is tiny, and so is its gradient.
    """
    logits_NV = logits_NV.to(at_least_fp32(logits_NV.dtype))
    logits_NK = _with_more(logits_NV.index_select(-1, buckets.first_K), logits_NV, buckets)
    if not len(buckets.rest_R):
        return logits_NK
    rest_N1 = logits_NV.index_select(-1, buckets.rest_R).logsumexp(-1, keepdim=True)
    return torch.cat([logits_NK, rest_N1], dim=-1)


def _with_more(logits_NK: Tensor, logits_NV: Tensor, buckets: Buckets) -> Tensor:
    """log(exp(first) + Σ exp(further)) of each bucket."""
    if not len(buckets.more_E):
        return logits_NK
    more_NE = logits_NV.index_select(-1, buckets.more_E)
    bucket_NE = buckets.bucket_E.expand(more_NE.shape)
    # A constant shift of each bucket: it keeps the exponentials in range and cancels, in the gradient too.
    largest_NK = logits_NK.detach().scatter_reduce(-1, bucket_NE, more_NE.detach(), "amax")
    largest_NK = largest_NK.clamp(min=torch.finfo(largest_NK.dtype).min)
    mass_NK = (logits_NK - largest_NK).exp()
    mass_NK = mass_NK.scatter_add(-1, bucket_NE, (more_NE - largest_NK.gather(-1, bucket_NE)).exp())
    empty_NK = mass_NK == 0  # all of it −inf: log 0 would give its gradient as NaN
    return (mass_NK.masked_fill(empty_NK, 1).log() + largest_NK).masked_fill(empty_NK, -torch.inf)


def meeting_of(student: Buckets, teacher: Buckets) -> Meet:
    """Bring both sides' logits to the same buckets."""
    assert len(student.first_K) == len(teacher.first_K), "buckets have pieces of both sides"
    assert bool(len(student.rest_R)) == bool(len(teacher.rest_R)), "there is a rest on both sides or on none"
    mine, theirs = cache(student.to), cache(teacher.to)  # sent once to each device, not with each strip
    return Meet(
        lambda logits_NV: bucket_logits(logits_NV, mine(logits_NV.device)),
        lambda logits_NV: bucket_logits(logits_NV, theirs(logits_NV.device)),
    )
