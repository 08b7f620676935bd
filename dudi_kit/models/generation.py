"""Continuations of prompts, batched and KV-cached; used for rollouts and for answers.

transformers' `generate` prepares them and asks the model for each token; the loop around that is ours, by its
`custom_generate`. It differs in two things that cost half of the bare forward passes where the vocabulary is large
(`benchmarks/generation.md`): whoever chooses a token says which, instead of writing new scores for the whole
vocabulary to be searched once more; and rows that have ended leave the batch.

A checkpoint's own sampling settings (Qwen's repetition penalty, say) would quietly bend the distribution that we sample
from, and transformers fills every setting that a caller leaves open from them. They are set aside for the call.
Shape suffixes: B rows of a call, b rows still in the batch, T columns, N new tokens, V vocabulary.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from dudi_kit.data.batches import pad
from dudi_kit.data.sending import sent
from dudi_kit.models.attention import continuing

LEAVE = 0.25
"""Share of the batch's rows that have ended when they leave it. Each size of a batch is a new shape, for which a CPU
makes kernels once; from 64 rows on it is at most 13 of them."""


class Continuation(NamedTuple):
    """What a model said after one prompt."""

    ids: list[int]
    """Its tokens, the stop token included where it came."""

    ended: bool
    """It stopped by itself; otherwise it was cut at the limit."""


class Stops(NamedTuple):
    """Ids that end a continuation, and the id that fills up."""

    stop_ids: tuple[int, ...]
    pad_id: int


class Choose(Protocol):
    """Chooses each row's next token."""

    def __call__(self, logits_bV: Tensor, row_b: Tensor, position: int) -> Tensor:
        """Ids [b]. logits_bV: in the model's dtype. row_b: which of the call's prompts each belongs
        to. position: tokens that were chosen before."""
        ...


def likeliest(logits_bV: Tensor, row_b: Tensor, position: int) -> Tensor:
    """Greedy. In fp32, since torch searches bf16 on a CPU six times as slowly as it copies and searches."""
    return logits_bV.float().argmax(-1)


@torch.no_grad()
def continue_prompts(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stops: Stops,
    *,
    max_new_tokens: int,
    choose: Choose = likeliest,
) -> list[Continuation]:
    """Continue each prompt (token ids) until a stop id or `max_new_tokens`."""
    ids_BT, mask_BT = (sent(t, model.device) for t in pad(prompts, stops.pad_id, side="left"))
    width = ids_BT.shape[1]
    padded = any(len(prompt) < width for prompt in prompts)
    # Compiled layers would be compiled anew for each of the cache's shapes.
    with (
        _set_aside(model),
        continuing(model, width + max_new_tokens, padded=padded),
        torch.compiler.set_stance("force_eager"),
    ):
        said_BN = model.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT.long(),
            max_new_tokens=max_new_tokens,
            use_cache=True,
            **_last_logits(model),
            custom_generate=partial(_decode, choose=choose, stops=stops, most=max_new_tokens),
        )
    return [_until_stop(row, stops.stop_ids) for row in said_BN.tolist()]


def _last_logits(model: Any) -> dict[str, Tensor]:
    """The last column by its number: see `models.reading`."""
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return {}
    return {"logits_to_keep": sent([-1], model.device)}


def _decode(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    *,
    choose: Choose,
    stops: Stops,
    most: int,
    **inputs: Any,
) -> Tensor:
    """What `generate` calls: new tokens [B, N], pad after the end. inputs: for the model, made by `generate`."""
    said_BN = input_ids.new_full((len(input_ids), most), stops.pad_id)
    stop_ids = sent(stops.stop_ids, input_ids.device)
    row_b = torch.arange(len(input_ids), device=input_ids.device)
    open_b = torch.ones_like(row_b, dtype=torch.bool)
    ids_bT, width = input_ids, None  # the whole prompts first, then a token each
    for position in range(most):
        asked = model.prepare_inputs_for_generation(
            ids_bT, next_sequence_length=width, is_first_iteration=width is None, **inputs
        )
        outputs = model(**asked, return_dict=True)
        inputs = model._update_model_kwargs_for_generation(outputs, inputs)
        chosen_b = choose(outputs.logits[:, -1], row_b, position)
        del outputs  # its logits, before the next ones are made
        chosen_b = torch.where(open_b, chosen_b, stops.pad_id)
        said_BN[row_b, position] = chosen_b
        open_b = open_b & ~torch.isin(chosen_b, stop_ids)
        ids_bT, width = torch.cat([ids_bT, chosen_b[:, None]], dim=1), 1
        left = int(open_b.sum())
        if not left:
            break
        if left <= (1 - LEAVE) * len(open_b) and _rows_may_leave(inputs):
            stay = open_b.nonzero().squeeze(-1)
            row_b, open_b, ids_bT = row_b[stay], open_b[stay], ids_bT[stay]
            inputs = _only_rows(inputs, stay)
    return said_BN


def _rows_may_leave(inputs: dict[str, Any]) -> bool:
    """All that the model remembers is keys and values; the states of recurrent layers can't be picked apart."""
    cache = inputs.get("past_key_values")
    kinds = (DynamicLayer, DynamicSlidingWindowLayer)
    return isinstance(cache, DynamicCache) and all(type(layer) in kinds for layer in cache.layers)


def _only_rows(inputs: dict[str, Any], stay: Tensor) -> dict[str, Any]:
    """Mask and positions [..., b, T] of these rows; the cache is cut in place."""
    inputs["past_key_values"].batch_select_indices(stay)
    return {
        name: value.index_select(-2, stay) if isinstance(value, Tensor) and value.dim() > 1 else value
        for name, value in inputs.items()
    }


def _until_stop(ids: list[int], stop_ids: tuple[int, ...]) -> Continuation:
    end = next((i for i, token in enumerate(ids) if token in stop_ids), None)
    return Continuation(ids, ended=False) if end is None else Continuation(ids[: end + 1], ended=True)


@contextmanager
def _set_aside(model: Any) -> Iterator[None]:
    """The model's own sampling settings, and its training mode."""
    own, was_training = model.generation_config, model.training
    model.generation_config = GenerationConfig()
    model.eval()
    try:
        yield
    finally:
        model.generation_config = own
        model.train(was_training)
