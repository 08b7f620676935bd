"""The sequence signal: the student learns to prefer the corpus response to its own sample."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dudi_kit.signals.result import SignalResult, Sums

EVEN = 1e-3
"""Nats: a margin below it is rounding, as at the first step, where policy and reference are one model."""


@dataclass(frozen=True)
class PairLogprobs:
    """One model's log-probabilities, in nats, of two responses to each prompt, each summed over response tokens."""

    corpus_B: Tensor
    """log p(y|x): the corpus response."""

    rollout_B: Tensor
    """log p(ỹ|x): the student's own sample."""


def sequence_signal(
    policy: PairLogprobs, reference: PairLogprobs, *, beta: float, valid_B: Tensor | None = None
) -> SignalResult:
    """Online SPIN: prefer the corpus response y to the student's own sample ỹ.

    −log σ(β·[(log π(y|x) − log π_ref(y|x)) − (log π(ỹ|x) − log π_ref(ỹ|x))]), in nats for each pair; the count is 1.

    beta: in 1/nats. valid_B: bool, the rows that hold a pair (all where None); the others have total 0, count 0 and no
    gradient. The reference is a constant. Metrics, means over pairs: `margin` (the bracket, in nats) and `accuracy`
    (share of pairs with a margin above `EVEN`).
    Source: the SPIN loss (arXiv 2401.01335) with samples of the current student, as in DuDi
    (arXiv 2606.04694).
    """
    margin_B = (policy.corpus_B - reference.corpus_B.detach()) - (policy.rollout_B - reference.rollout_B.detach())
    valid_B = torch.ones_like(margin_B, dtype=torch.bool) if valid_B is None else valid_B.bool()
    margin_B = margin_B.masked_fill(~valid_B, 0)
    loss_B = -logsigmoid(beta * margin_B).masked_fill(~valid_B, 0)
    count_B = valid_B.long()
    return SignalResult(
        total_B=loss_B,
        count_B=count_B,
        metrics={
            "margin": Sums(margin_B.detach(), count_B),
            "accuracy": Sums((margin_B.detach() > EVEN).to(margin_B.dtype), count_B),
        },
    )
