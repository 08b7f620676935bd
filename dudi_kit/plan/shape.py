"""A decoder-only transformer as far as its memory goes, read from its configuration; no weight is made."""

from dataclasses import dataclass

from transformers import PreTrainedConfig

NORMS_AROUND = frozenset({"gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text", "glm4"})
"""Families that normalise before and after each half of a layer: four times, not twice."""

HEAD_NORMS = frozenset({"qwen3", "qwen3_moe", "gemma3", "gemma3_text", "gemma4", "gemma4_text", "olmo2", "apertus"})
"""Families that normalise queries and keys."""

UNGATED = frozenset({"apertus", "gpt2", "gpt_neox", "opt", "bloom", "phi", "falcon", "starcoder2", "nemotron"})
"""Families whose feed-forward part has two matrices instead of three."""

MASKED = frozenset({"bloom", "mpt", "falcon", "gemma2", "gptj", "codegen", "gpt_neo", "xglm"})
"""Families whose attention is always given a mask: distances are in it, or transformers has no quick kernel for them.
The scores that they keep beside it are not counted."""


@dataclass(frozen=True)
class ModelShape:
    """Numbers of elements; what is not in the configuration is the usual."""

    parameters: int
    """Tied ones once."""

    vocabulary: int
    """Rows of the output head, padding included."""

    hidden: int
    layers: int
    query: int
    """Heads × their width."""

    key_value: int
    """The same of keys; values have as many."""

    intermediate: int
    """Width of the feed-forward part; of a mixture of experts, that of all experts that a token goes through."""

    norms: int = 2
    """Of a layer, over the hidden width."""

    head_norms: bool = False
    """Queries and keys are normalised too."""

    fp32_norms: bool = False
    """Gemma's way: normalised values stay in fp32 until they are scaled."""

    gated: bool = True
    tied: bool = True
    window: int | None = None
    """Tokens that some layers see at most; 0 where attention takes a mask always, None where it never needs one."""

    @property
    def embeddings(self) -> int:
        """Parameters of both embeddings."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def largest_matrix(self) -> int:
        """Parameters of the largest one: an embedding, or a projection of the feed-forward part."""
        return self.hidden * max(self.vocabulary, self.intermediate)


def shape_of(config: PreTrainedConfig, parameters: int) -> ModelShape:
    """The shape of a text model's configuration. parameters: as `count_parameters` counts them."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kind = config.model_type
    return ModelShape(
        parameters=parameters,
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        query=heads * width,
        key_value=(getattr(config, "num_key_value_heads", None) or heads) * width,
        intermediate=_intermediate(config),
        norms=4 if kind in NORMS_AROUND else 2,
        head_norms=kind in HEAD_NORMS,
        fp32_norms=kind.startswith("gemma"),
        gated=kind not in UNGATED,
        tied=bool(getattr(config, "tie_word_embeddings", True)),
        window=0 if kind in MASKED else getattr(config, "sliding_window", None),
    )


def _intermediate(config: PreTrainedConfig) -> int:
    experts = getattr(config, "num_experts_per_tok", None)
    width = getattr(config, "moe_intermediate_size", None)
    if experts and width:
        return int(experts * width)
    return int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
