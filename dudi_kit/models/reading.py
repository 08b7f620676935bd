"""How every model of the step reads a batch: one forward pass, predictions of response tokens only.

Shape suffixes: B rows, T columns, R response columns, V vocabulary, H hidden, N response tokens.
Prompts are padded on the left and responses on the right (`dudi_kit.data.batches`), so the responses of a batch begin
in the same column and the model itself can be told to keep just the last R+1 positions (`logits_to_keep`).

Few logits are the model's own. Where they would be many, the pass ends at the hidden states of the response tokens, and
the head is computed for some positions at a time; what a head does beside its product is known to `models.head_form`,
and a model about whose head it is not sure is asked for its own logits, however many. Of packed rows the model would
compute those of the prompts as well, so that few are not asked for.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

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
    if not batch.is_packed and (form is None or len(places.row_N) * pieces_of(model) <= few):
        yield Predictions(response_logits(model, batch)[places.row_N, places.column_N])
        return
    at = batch.line_B[places.row_N], batch.first_B[places.row_N] + places.column_N
    if form is None:
        yield Predictions(model(**_inputs(model, batch, _columns(batch, 0))).logits[at])
        return
    with hidden_states(model) as seen:
        model(**_inputs(model, batch, _columns(batch, batch.input_ids_BT.shape[1])))  # no logits at all
    (hidden_BTH,) = seen
    rows_NH = hidden_BTH[at]
    del hidden_BTH, seen
    with open_head(model, form) as head:
        yield Predictions(rows_NH, head)


def response_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Logits that predict each response token of a padded batch: [B, R, V], in the model's dtype, by its own head.

    The logits that predict token t are those at t−1: of the last R+1 columns the final one predicts nothing and goes.
    """
    width = batch.response_columns
    columns_C = _columns(batch, batch.input_ids_BT.shape[1] - width - 1)
    logits_BTV: Tensor = model(**_inputs(model, batch, columns_C)).logits
    return logits_BTV[:, -width - 1 : -1]


@torch.no_grad()
def frozen_response_logits(model: nn.Module, batch: Batch) -> Tensor:
    """The same from a model that does not learn."""
    return response_logits(model, batch)


def _columns(batch: Batch, first: int) -> Tensor:
    """Numbers of the columns from `first` on.

    By their numbers, and not by how many: a slice of the hidden states is strided, for which torch copies the head of
    a model in bf16 once for each row (1 s a row with 262,144 pieces).
    """
    return torch.arange(first, batch.input_ids_BT.shape[1], device=batch.input_ids_BT.device)


def _inputs(model: nn.Module, batch: Batch, columns_C: Tensor) -> dict[str, Any]:
    """columns_C: those of which logits are wanted."""
    inputs: dict[str, Any] = {"input_ids": batch.input_ids_BT, "use_cache": False}
    if not batch.is_packed:
        inputs["attention_mask"] = batch.attention_mask_BT
    accepted = inspect.signature(inner(model).forward).parameters
    if "position_ids" in accepted:
        inputs["position_ids"] = batch.position_ids_BT
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = columns_C
    return inputs
