"""Recipe sections → the functions of the signals room. One line for each variant; losses never see a recipe."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dudi_kit.recipe.derive import drawn_as_compared
from dudi_kit.recipe.schema.rollouts import Rollouts
from dudi_kit.recipe.schema.signals import (
    JSD,
    ForwardKL,
    ReverseKL,
    Signals,
    SkewForwardKL,
    SkewReverseKL,
    TokenSignal,
)
from dudi_kit.recipe.schema.verbalizer import Term
from dudi_kit.signals.divergences import (
    Divergence,
    forward_kl,
    jsd,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
)
from dudi_kit.signals.meeting import Buckets, Meet, meeting_of
from dudi_kit.signals.spans import SpanLogprobs, sampled_reverse_kl, two_outcomes
from dudi_kit.signals.token import Comparison, OverBuckets, OverPieces
from dudi_kit.verbalizer.vocabulary.meeting import Meeting

SpanRule = Callable[[SpanLogprobs], Tensor]
"""Likelihoods of spans on both sides → a value for each, in nats."""

OF_TEACHER = frozenset({"off_policy", "on_policy"})
"""Signals that ask the teacher."""

DIVERGENCES: dict[type, Callable[[Any], Divergence]] = {
    ReverseKL: lambda _: reverse_kl,
    ForwardKL: lambda _: forward_kl,
    JSD: lambda settings: jsd(settings.beta),
    SkewForwardKL: lambda settings: skew_forward_kl(settings.alpha),
    SkewReverseKL: lambda settings: skew_reverse_kl(settings.alpha),
}


def bare_divergence_of(signal: TokenSignal) -> Divergence:
    """The divergence of a token signal, at temperature 1."""
    return DIVERGENCES[type(signal.divergence)](signal.divergence)


def comparison_of(signal: TokenSignal, pieces: int | None, meet: Meet | None) -> Comparison:
    """What a token signal compares. pieces: of a shared vocabulary; meet: where the two differ."""
    divergence = bare_divergence_of(signal)
    if meet is not None:
        return OverBuckets(divergence, meet, signal.temperature)
    return OverPieces(divergence, signal.temperature, pieces)


def span_rules(signals: Mapping[Term, TokenSignal], rollouts: Rollouts) -> dict[Term, SpanRule]:
    """How each term's spans are compared."""
    return {
        term: on_samples(signal, rollouts) if term == "on_policy" else off_samples(signal)
        for term, signal in signals.items()
    }


def on_samples(signal: TokenSignal, rollouts: Rollouts) -> SpanRule:
    """How spans of the student's own samples are compared: the reverse KL by sampling, any other as `off_samples`.

    So too where the samples were drawn at another temperature, or cut by top_p: a sampled KL would be biased.
    """
    sampled = isinstance(signal.divergence, ReverseKL) and drawn_as_compared(signal, rollouts)
    return sampled_reverse_kl if sampled else off_samples(signal)


def off_samples(signal: TokenSignal) -> SpanRule:
    """How spans of the corpus are compared."""
    return partial(two_outcomes, bare_divergence_of(signal))


def tensors_of(meeting: Meeting) -> Meet:
    """The maps of the vocabulary mapping as a function of logits."""
    student, teacher = (Buckets(*map(torch.from_numpy, side)) for side in meeting.sides())
    return meeting_of(student, teacher)


def active_weights(signals: Signals) -> dict[str, float]:
    """Weight of each signal that has one, in the order of the schema."""
    weights = {name: getattr(signals, name).weight for name in Signals.model_fields}
    return {name: weight for name, weight in weights.items() if weight > 0}
