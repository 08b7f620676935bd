"""How every model of the step reads a batch: one forward pass, logits at response positions only.

Shape suffixes: B rows, T columns, R response columns, V vocabulary.
Prompts are padded on the left and responses on the right (`dudi_kit.data.batches`), so the responses of a batch begin
in the same column and the model itself can be told to keep just the last R+1 positions (`logits_to_keep`). Nothing is
computed by hand after the model's own head: soft-capping, logit scales and tied heads are the model's business.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from dudi_kit.data.batches import Batch


def response_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Logits that predict each response token: [B, R, V], in the model's dtype.

    The logits that predict token t are those at t−1: of the last R+1 columns the final one predicts nothing and goes.
    """
    width = batch.response_ids_BR.shape[1]
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids_BT,
        "attention_mask": batch.attention_mask_BT,
        "use_cache": False,
    }
    accepted = _forward_parameters(model)
    if "position_ids" in accepted:
        inputs["position_ids"] = batch.position_ids_BT
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = width + 1
    logits_BTV: Tensor = model(**inputs).logits
    return logits_BTV[:, -width - 1 : -1]


@torch.no_grad()
def frozen_response_logits(model: nn.Module, batch: Batch) -> Tensor:
    """The same from a model that does not learn."""
    return response_logits(model, batch)


def _forward_parameters(model: nn.Module) -> frozenset[str]:
    inner = getattr(model, "module", model)  # the engine's forward takes anything; the model inside says what it knows
    return frozenset(inspect.signature(inner.forward).parameters)
