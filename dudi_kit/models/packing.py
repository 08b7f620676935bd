"""Models that read several rows in one line without letting one see another.

transformers builds their masks from positions that begin anew (`masking_utils.find_packed_sequence_indices`), for
attention, full or in a window, of models that take positions and hand them to it. Where a model has other ways to carry
something from one token to the next (convolutions, recurrent states), or derives distances from the mask (ALiBi), rows
would leak into each other without a word.

The same models read responses that share their prompt in one line. For these they are given a whole mask of ours, which
all layers take, those with a window too: so no row may be longer than that.
"""

from transformers import PreTrainedConfig

from dudi_kit.data.batches import Sharing

PACKS = frozenset({
    "apertus", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm4", "gpt2", "gpt_neox",
    "granite", "llama", "mistral", "olmo2", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss",
    "smollm3", "stablelm", "starcoder2",
})  # fmt: skip
"""`model_type` of those that a test packs, and compares with each row alone."""


TAKES_MASKS = ("sdpa", "eager")
"""Attention that adds a mask of ours to its scores. transformers takes one of them unless config.json names another."""


def sharing_of(config: PreTrainedConfig) -> Sharing | None:
    """Of a model with this configuration; None where it is not known that it keeps apart what shares a line."""
    if config.model_type not in PACKS or config._attn_implementation not in (None, *TAKES_MASKS):
        return None
    return Sharing(config.hidden_size, getattr(config, "sliding_window", None))
