"""What a model says of the response tokens of a batch, all at once: what training reads, for tests that compare it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dudi_kit.data.batches import Batch
from dudi_kit.models.reading import FEW, Places, predictions


def response_logits(model: Any, batch: Batch, *, few: int = FEW) -> Tensor:
    """[N, V], row after row; the model's own have a graph where it learns."""
    with predictions(model, batch, Places(*batch.response_mask_BR.nonzero(as_tuple=True)), few=few) as said:
        return said.rows if said.head is None else said.logits(np.arange(len(said)))


@torch.no_grad()
def frozen_response_logits(model: Any, batch: Batch, *, few: int = FEW) -> Tensor:
    return response_logits(model, batch, few=few)
