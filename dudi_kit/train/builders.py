"""Recipe sections → the functions of the signals room. One line for each variant; losses never see a recipe."""

from collections.abc import Callable
from typing import Any

from dudi_kit.recipe.schema.signals import (
    JSD,
    ForwardKL,
    ReverseKL,
    Signals,
    SkewForwardKL,
    SkewReverseKL,
    TokenSignal,
)
from dudi_kit.signals.divergences import (
    Divergence,
    forward_kl,
    jsd,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
    with_temperature,
)

OF_TEACHER = frozenset({"off_policy", "on_policy"})
"""Signals that ask the teacher."""

DIVERGENCES: dict[type, Callable[[Any], Divergence]] = {
    ReverseKL: lambda _: reverse_kl,
    ForwardKL: lambda _: forward_kl,
    JSD: lambda settings: jsd(settings.beta),
    SkewForwardKL: lambda settings: skew_forward_kl(settings.alpha),
    SkewReverseKL: lambda settings: skew_reverse_kl(settings.alpha),
}


def divergence_of(signal: TokenSignal) -> Divergence:
    """The divergence of a token signal, at its temperature."""
    bare = DIVERGENCES[type(signal.divergence)](signal.divergence)
    return bare if signal.temperature == 1 else with_temperature(bare, signal.temperature)


def active_weights(signals: Signals) -> dict[str, float]:
    """Weight of each signal that has one, in the order of the schema."""
    weights = {name: getattr(signals, name).weight for name in Signals.model_fields}
    return {name: weight for name, weight in weights.items() if weight > 0}
