"""Attention that is told nothing but to look back.

Where no mask is given, transformers looks into the positions of every pass, whether rows share its lines
(`masking_utils.find_packed_sequence_indices`), and waits for the device to see it. Of our batches that is known. An
attention that has no way of making masks registered is never asked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import AttentionInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from dudi_kit.data.batches import Batch
from dudi_kit.models.head_form import inner
from dudi_kit.models.packing import sharing_of

LOOKS_BACK = "dudi_looks_back"

AttentionInterface.register(LOOKS_BACK, sdpa_attention_forward)


@contextmanager
def looking_back(model: nn.Module, batch: Batch) -> Iterator[None]:
    """Inside, the model makes no masks, where it needs none for this batch and its family is one that packing knows.

    What is computed again for backward comes later, under the model's own attention: the same kernels, without a mask.
    """
    config: Any = getattr(inner(model), "config", None)
    if config is None or config._attn_implementation != "sdpa" or not _needs_no_mask(config, batch):
        yield
        return
    config._attn_implementation = LOOKS_BACK
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


def _needs_no_mask(config: PreTrainedConfig, batch: Batch) -> bool:
    known, columns = sharing_of(config), batch.input_ids_LT.shape[1]
    return known is not None and not batch.is_packed and columns <= (known.window or columns)
