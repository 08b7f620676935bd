"""`signals`: the terms of the objective, each with its weight. L = α·L_seq + w_off·L_off + w_on·L_on (+ SFT, DFT)."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from dudi_kit.recipe.schema.base import Count, Positive, Probability, Strict, Weight, tag_by


class ReverseKL(Strict):
    """KL(π‖T): the student avoids what the teacher finds unlikely. The paper's best."""

    type: Literal["reverse_kl"] = "reverse_kl"


class ForwardKL(Strict):
    """KL(T‖π): the student covers all that the teacher finds likely."""

    type: Literal["forward_kl"]


class JSD(Strict):
    """Generalised Jensen–Shannon divergence: β·KL(T‖M) + (1−β)·KL(π‖M), M = β·T + (1−β)·π (GKD, arXiv 2306.13649)."""

    type: Literal["jsd"]
    beta: Probability = 0.5
    """0 is forward KL and 1 is reverse KL, by GKD's convention."""


class SkewForwardKL(Strict):
    """KL(T ‖ α·T + (1−α)·π) (DistiLLM, arXiv 2402.03898)."""

    type: Literal["skew_forward_kl"]
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the teacher in the mixture; 0 is forward KL."""


class SkewReverseKL(Strict):
    """KL(π ‖ (1−α)·T + α·π) (DistiLLM, arXiv 2402.03898)."""

    type: Literal["skew_reverse_kl"]
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the student in the mixture; 0 is reverse KL."""


Divergence = Annotated[
    Annotated[ReverseKL, Tag("reverse_kl")]
    | Annotated[ForwardKL, Tag("forward_kl")]
    | Annotated[JSD, Tag("jsd")]
    | Annotated[SkewForwardKL, Tag("skew_forward_kl")]
    | Annotated[SkewReverseKL, Tag("skew_reverse_kl")],
    Discriminator(tag_by("type", default="reverse_kl")),
]


class FrozenReference(Strict):
    """π_ref is the cold start, for the whole run."""

    type: Literal["cold_start"] = "cold_start"


class RefreshedReference(Strict):
    """π_ref is the student as it was at the last multiple of `every` steps."""

    type: Literal["refreshed"]
    every: Count
    """Optimizer steps between two refreshes."""


Reference = Annotated[
    Annotated[FrozenReference, Tag("cold_start")] | Annotated[RefreshedReference, Tag("refreshed")],
    Discriminator(tag_by("type", default="cold_start")),
]


class SequenceSignal(Strict):
    """Online sequence-level signal: the student learns to prefer the reference response to its own sample."""

    weight: Weight = 1.0
    """Multiplies the signal in the objective (α in the paper)."""

    beta: Positive = 0.1
    """Sharpness of the preference, in 1/nats."""

    reference: Reference = FrozenReference()
    """Model that anchors the preference."""


class TokenSignal(Strict):
    """Token-level signal: the mean divergence of student and teacher over response tokens."""

    weight: Weight = 0.5
    """Multiplies the signal in the objective (1−λ off-policy and λ on-policy in the paper)."""

    divergence: Divergence = ReverseKL()
    """Which divergence D is."""

    temperature: Positive = 1.0
    """Both models' logits are divided by it before D; no T² factor."""


class LikelihoodSignal(Strict):
    """A signal on the reference response alone; it needs no teacher."""

    weight: Weight = 0.0
    """Multiplies the signal in the objective."""


class Signals(Strict):
    """The objective. A signal with weight 0 is off and costs nothing."""

    sequence: SequenceSignal = SequenceSignal()
    off_policy: TokenSignal = TokenSignal()
    """D on the corpus response y."""

    on_policy: TokenSignal = TokenSignal()
    """D on the student's own sample ỹ; the teacher may read the verbalizer's demonstration."""

    sft: LikelihoodSignal = LikelihoodSignal()
    """−log π(y|x), a mean over response tokens: the cold start and a baseline."""

    dft: LikelihoodSignal = LikelihoodSignal()
    """−sg(π(y_t))·log π(y_t), a mean over response tokens: dynamic fine-tuning (arXiv 2508.05629), a baseline."""
