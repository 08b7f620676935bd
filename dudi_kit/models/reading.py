"""How every model of the step reads a batch: one forward pass, predictions of response tokens only.

Shape suffixes: L lines, T columns, V vocabulary, H hidden, N response tokens.

Few logits are the model's own: its head is given the hidden states of the response tokens and no others. Where they
would be many, the pass ends at these hidden states, and the head is computed for some positions at a time; what a head
does beside its product is known to `models.head_form`, and a model about whose head it is not sure is asked for its own
logits, however many.

No attention mask is given but where rows share their prompt: see `data.batches`.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dudi_kit.data.batches import Batch
from dudi_kit.models.attention import looking_back
from dudi_kit.models.head import Predictions
from dudi_kit.models.head_form import head_form, head_of, hidden_states, inner, is_shared_out, open_head, pieces_of

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
    at = batch.predicted_at(places.row_N, places.column_N)
    if form is None or (len(places.row_N) * pieces_of(model) <= few and not is_shared_out(model)):
        yield Predictions(_own_logits(model, batch, at))
        return
    with hidden_states(model) as seen, looking_back(model, batch):
        model(**_inputs(model, batch), **_no_logits(model, batch))
    (hidden_LTH,) = seen
    rows_NH = hidden_LTH[at]
    del hidden_LTH, seen
    with open_head(model, form) as head:
        yield Predictions(rows_NH, head)


@torch.no_grad()
def response_nats(model: nn.Module, batch: Batch) -> list[float]:
    """−log p(response | prompt) of each row. One row at a time in fp32, so that [R, V] of them is held once."""
    found, start = [], 0
    with predictions(model, batch, Places(*batch.response_mask_BR.nonzero(as_tuple=True))) as said:
        for ids_R, mask_R in zip(batch.response_ids_BR, batch.response_mask_BR, strict=True):
            told_R = ids_R[mask_R]
            logits_RV = said.logits(slice(start, start + len(told_R))).float()
            found.append(float(functional.cross_entropy(logits_RV, told_R, reduction="sum")))
            start += len(told_R)
    return found


def _own_logits(model: nn.Module, batch: Batch, at: tuple[Tensor, Tensor]) -> Tensor:
    """[N, V] by the model's own head and in its dtype. at: lines and columns."""
    head, asked = head_of(model), _inputs(model, batch)
    given: list[Tensor] = []

    def only_these(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_LTH, *others = inputs
        assert hidden_LTH.shape[:2] == asked["input_ids"].shape, "a head reads the hidden states of all columns"
        line_N, column_N = (index.to(hidden_LTH.device) for index in at)  # layers may lie on several GPUs
        given.append(line_N)
        return (hidden_LTH[line_N, column_N].unsqueeze(0), *others)

    with looking_back(model, batch), nullcontext() if head is None else head.register_forward_pre_hook(only_these):
        logits_LTV: Tensor = model(**asked).logits
    return logits_LTV[0] if given else logits_LTV[at]


def _inputs(model: nn.Module, batch: Batch) -> dict[str, Any]:
    plain = inner(model)
    inputs: dict[str, Any] = {"input_ids": batch.input_ids_LT[:, : _room(plain, batch)], "use_cache": False}
    if batch.position_ids_LT is not None and "position_ids" in inspect.signature(plain.forward).parameters:
        inputs["position_ids"] = batch.position_ids_LT
    if "output_router_logits" in inspect.signature(plain.forward).parameters:
        inputs["output_router_logits"] = False  # the loss of a mixture of experts' balance, which nobody reads
    sees_LTT = batch.sees()
    if sees_LTT is not None:
        inputs["attention_mask"] = _added(sees_LTT, plain.dtype)
    return inputs


def _added(sees_LTT: Tensor, dtype: torch.dtype) -> Tensor:
    """[L, 1, T, T]: what is added to the scores of attention, 0 or the least there is.

    Of a mask of bools, each layer would make one of these for itself, and keep it for backward.
    """
    added_L1TT = torch.zeros(sees_LTT.shape, dtype=dtype, device=sees_LTT.device)
    return added_L1TT.masked_fill_(~sees_LTT, torch.finfo(dtype).min).unsqueeze(1)


def _no_logits(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Where the pass is for its hidden states."""
    if "logits_to_keep" not in inspect.signature(inner(model).forward).parameters:
        return {}
    return {"logits_to_keep": torch.arange(0, device=batch.input_ids_LT.device)}


def _room(model: nn.Module, batch: Batch) -> int:
    """Columns for which the model has positions: a learned table may end within the filler of the longest line."""
    columns = batch.input_ids_LT.shape[1]
    table = getattr(getattr(model, "config", None), "max_position_embeddings", None) or columns
    return columns if batch.is_packed or columns <= table else batch.longest
