"""How every model of the step reads a batch: one forward pass, predictions of response tokens only.

Shape suffixes: L lines, T columns, C columns with logits, V vocabulary, H hidden, N response tokens.

Few logits are the model's own, of the columns from the first that predicts a response (`logits_to_keep`). Where they
would be many, the pass ends at the hidden states of the response tokens, and the head is computed for some positions at
a time; what a head does beside its product is known to `models.head_form`, and a model about whose head it is not sure
is asked for its own logits, however many.

No model is given an attention mask: see `data.batches`.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dudi_kit.data.batches import Batch
from dudi_kit.models.head import Predictions
from dudi_kit.models.head_form import head_form, hidden_states, inner, open_head, pieces_of

FEW = 2**24
"""Positions × vocabulary up to which a model is asked for its logits, all at once: they would be one chunk in fp32, and
in bf16 the head's gradient, which is then not summed in fp32, takes less time (benchmarks/speed.md)."""


class Places(NamedTuple):
    """Response tokens by their row in the batch and their column in the response: [N] each."""

    row_N: Tensor
    column_N: Tensor


@contextmanager
def predictions(model: nn.Module, batch: Batch, places: Places, *, few: int = FEW) -> Iterator[Predictions]:
    """What the model predicts at these response tokens, with a graph where it learns. Inside, its head is whole.

    The prediction of token t is made at t−1.
    """
    form = head_form(model)
    at = batch.line_B[places.row_N], batch.first_B[places.row_N] + places.column_N
    if form is None or _own(batch) * pieces_of(model) <= few:
        logits_LCV, first = _own_logits(model, batch)
        yield Predictions(logits_LCV[at[0], at[1] - first])
        return
    with hidden_states(model) as seen:
        model(**_inputs(model, batch, batch.input_ids_LT.shape[1]))  # no logits at all
    (hidden_LTH,) = seen
    rows_NH = hidden_LTH[at]
    del hidden_LTH, seen
    with open_head(model, form) as head:
        yield Predictions(rows_NH, head)


@torch.no_grad()
def response_nats(model: nn.Module, batch: Batch) -> list[float]:
    """−log p(response | prompt) of each row of a batch that is not packed, by the model's own logits.

    One row at a time in fp32, so that [R, V] of them is held once.
    """
    logits_LCV, first = _own_logits(model, batch)
    found = []
    for line, start, ids_R, mask_R in zip(
        batch.line_B.tolist(), batch.first_B.tolist(), batch.response_ids_BR, batch.response_mask_BR, strict=True
    ):
        told_R = ids_R[mask_R]
        logits_RV = logits_LCV[line, start - first : start - first + len(told_R)].float()
        found.append(float(functional.cross_entropy(logits_RV, told_R, reduction="sum")))
    return found


def _own(batch: Batch) -> int:
    """Positions whose logits a model computes where it is asked for its own."""
    lines, columns = batch.input_ids_LT.shape
    return lines * (columns - batch.earliest)


def _own_logits(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """By the model's own head and in its dtype, and the column of the first: not every model leaves some out."""
    inputs = _inputs(model, batch, batch.earliest)
    logits_LCV: Tensor = model(**inputs).logits
    return logits_LCV, inputs["input_ids"].shape[1] - logits_LCV.shape[1]


def _inputs(model: nn.Module, batch: Batch, first: int) -> dict[str, Any]:
    """first: column from which on logits are wanted; behind the last, none are."""
    plain = inner(model)
    ids_LT = batch.input_ids_LT[:, : _room(plain, batch)]
    columns = ids_LT.shape[1]
    inputs: dict[str, Any] = {"input_ids": ids_LT, "use_cache": False}
    accepted = inspect.signature(plain.forward).parameters
    if batch.position_ids_LT is not None and "position_ids" in accepted:
        inputs["position_ids"] = batch.position_ids_LT
    if "logits_to_keep" in accepted:
        # By their numbers, and not by how many: a slice of the hidden states is strided, for which torch copies the
        # head of a model in bf16 once for each row (1 s a row with 262,144 pieces).
        inputs["logits_to_keep"] = torch.arange(min(first, columns), columns, device=ids_LT.device)
    return inputs


def _room(model: nn.Module, batch: Batch) -> int:
    """Columns for which the model has positions: a learned table may end within the filler of the longest line."""
    columns = batch.input_ids_LT.shape[1]
    table = getattr(getattr(model, "config", None), "max_position_embeddings", None) or columns
    return columns if batch.is_packed or columns <= table else batch.longest
