"""Attention that is told what transformers would look for, and wait for the device to see.

Where no mask is given, transformers looks into the positions of every pass, whether rows share its lines
(`masking_utils.find_packed_sequence_indices`); where one is given, whether it hides anything
(`_ignore_causal_mask_sdpa`), which while sampling is once for each token. Of our batches both are known. An attention
that has no way of making masks registered is never asked; one whose masks are always made looks for no way around it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from dudi_kit.data.batches import Batch
from dudi_kit.models.head_form import inner
from dudi_kit.models.packing import sharing_of

LOOKS_BACK, MASKS_ALWAYS = "dudi_looks_back", "dudi_masks_always"


def _always(*sizes: Any, **settings: Any) -> Tensor | None:
    mask: Tensor | None = sdpa_mask(*sizes, **settings | {"allow_is_causal_skip": False})
    return mask


AttentionInterface.register(LOOKS_BACK, sdpa_attention_forward)
AttentionInterface.register(MASKS_ALWAYS, sdpa_attention_forward)
AttentionMaskInterface.register(MASKS_ALWAYS, _always)


@contextmanager
def looking_back(model: nn.Module, batch: Batch) -> Iterator[None]:
    """Inside, the model makes no masks, where it needs none for this batch and its family is one that packing knows.

    What is computed again for backward comes later, under the model's own attention: the same kernels, without a mask.
    """
    with _under(model, None if batch.is_packed else LOOKS_BACK, columns=batch.input_ids_LT.shape[1]):
        yield


@contextmanager
def continuing(model: nn.Module, columns: int, *, padded: bool) -> Iterator[None]:
    """The same while prompts are continued to so many columns at most.

    Where some are padded (on the left) a mask is made for each token, else for none.
    """
    with _under(model, MASKS_ALWAYS if padded else LOOKS_BACK, columns):
        yield


@contextmanager
def _under(model: nn.Module, attention: str | None, columns: int) -> Iterator[None]:
    """Inside, the model has this attention, where it is known to pay heed to it and no window is shorter than that."""
    config: Any = getattr(inner(model), "config", None)
    known = None if config is None or attention is None else sharing_of(config)
    fits = known is not None and (attention == MASKS_ALWAYS or columns <= (known.window or columns))
    if not fits or config._attn_implementation != "sdpa":
        yield
        return
    config._attn_implementation = attention
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
