"""Continuations of prompts, batched and KV-cached, by transformers' own `generate`; used for rollouts and for answers.

A checkpoint's own sampling settings (Qwen's repetition penalty, say) would quietly bend the distribution that we sample
from, and transformers fills every setting that a caller leaves open from them. They are set aside for the call.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from dudi_kit.data.batches import pad


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


@torch.no_grad()
def continue_prompts(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stops: Stops,
    *,
    max_new_tokens: int,
    processors: Sequence[LogitsProcessor] = (),
) -> list[Continuation]:
    """Continue each prompt (token ids) until a stop id or `max_new_tokens`; greedy after the processors.

    Sampling is a processor's work (`dudi_kit.train.rollouts`), so that each row can have a generator of its own.
    """
    ids_BT, mask_BT = (t.to(model.device) for t in pad(prompts, stops.pad_id, side="left"))
    was_training = model.training
    model.eval()
    # Compiled layers would be compiled anew for each of the cache's shapes.
    with _own_settings_set_aside(model), torch.compiler.set_stance("force_eager"):
        out_BT = model.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT.long(),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=list(stops.stop_ids),
            pad_token_id=stops.pad_id,
            logits_processor=LogitsProcessorList(processors),
        )
    model.train(was_training)
    return [_until_stop(row, stops.stop_ids) for row in out_BT[:, ids_BT.shape[1] :].tolist()]


def _until_stop(ids: list[int], stop_ids: tuple[int, ...]) -> Continuation:
    end = next((i for i, token in enumerate(ids) if token in stop_ids), None)
    return Continuation(ids, ended=False) if end is None else Continuation(ids[: end + 1], ended=True)


@contextmanager
def _own_settings_set_aside(model: Any) -> Iterator[None]:
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
