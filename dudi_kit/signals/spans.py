"""Stretches of text for which the two sides have different numbers of tokens: only their likelihoods can be compared.

Shape suffixes: B rows, T response positions, S spans. log p of a span is the sum over its tokens, in nats.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dudi_kit.signals.divergences import Divergence

LIKELIEST = -1e-6
"""Largest log p of a span that is told from certainty: in fp32, 1 − p would be lost beyond it."""


class SpanLogprobs(NamedTuple):
    """log p of the same spans on both sides, in nats."""

    student_S: Tensor
    teacher_S: Tensor


def sum_spans(logprob_BT: Tensor, span_BT: Tensor, spans: int) -> Tensor:
    """Add up a span's tokens → [S]. span_BT: number of the span that a token belongs to; −1 outside of any."""
    # One slot more for the other tokens: to leave them out, a GPU would first have to say how many there are.
    slot_BT = torch.where(span_BT < 0, spans, span_BT)
    return logprob_BT.new_zeros(spans + 1).index_add(0, slot_BT.flatten(), logprob_BT.flatten())[:spans]


def sampled_reverse_kl(spans: SpanLogprobs) -> Tensor:
    """log π(s) − log T(s) for spans s ~ π; its gradient is sg(log π(s) − log T(s))·∇log π(s). [S] twice → [S].

    Both are unbiased for the reverse KL between the two sides' distributions of spans after a given prefix:
    ∇ Σ π·log(π/T) = E[(log π − log T)·∇log π] + E[∇log π], and the last term is 0. Of a part of the spans it is the
    generalised KL, Σ π·log(π/T) − π + T, so that a student that equals its teacher is left alone there, too.
    """
    student_S, teacher_S = spans.student_S, spans.teacher_S.detach()
    surprise_S = (student_S - teacher_S).detach()
    return surprise_S + surprise_S * (student_S - student_S.detach())


def two_outcomes(divergence: Divergence, spans: SpanLogprobs) -> Tensor:
    """D between "this span" and "anything else", for spans of any origin. [S] twice → [S].

    What was said is an event of which both sides know the probability, whoever said it: coarse-grained to it and its
    complement, the divergence needs no sample of π, and never exceeds that between all spans. A corpus span is no
    sample of π, so a sampled reverse KL would be biased there.
    """
    return divergence(_with_complement(spans.student_S), _with_complement(spans.teacher_S.detach()))


def _with_complement(logprob_S: Tensor) -> Tensor:
    """log p and log(1 − p): [S, 2]."""
    logprob_S = logprob_S.clamp(max=LIKELIEST)
    return torch.stack([logprob_S, _log1mexp(logprob_S)], dim=-1)


def _log1mexp(logprob: Tensor) -> Tensor:
    """log(1 − exp(x)) for x < 0, without cancellation at either end."""
    near = logprob > -math.log(2)
    # Each branch sees only what it is good at: the other one's gradient would be NaN, and NaN·0 is NaN.
    for_near = torch.where(near, logprob, -1.0)
    for_far = torch.where(near, -1.0, logprob)
    return torch.where(near, torch.log(-torch.expm1(for_near)), torch.log1p(-torch.exp(for_far)))
