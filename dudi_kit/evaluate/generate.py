"""Greedy answers in batches of like length. What a model answers does not depend on the size of the batch."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dudi_kit.data.encode import Encoder
from dudi_kit.evaluate.batching import of_like_length
from dudi_kit.evaluate.progress import Advance
from dudi_kit.models.generation import Continuation, Stops, continue_prompts


class Answer(NamedTuple):
    """What a model said to one prompt."""

    text: str
    token_count: int
    """Tokens, the end of turn not counted."""

    truncated: bool
    """It reached `max_new_tokens` before its end."""


def greedy(
    model: PreTrainedModel,
    encoder: Encoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Advance | None = None,
) -> list[Answer]:
    """The most probable token at each position, for each prompt (token ids), in the order of `prompts`."""
    answers: dict[int, Answer] = {}
    for some in greedy_batches(model, encoder, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size):
        answers |= some
        if progress is not None:
            progress(len(some))
    return [answers[i] for i in range(len(prompts))]


def greedy_batches(
    model: PreTrainedModel,
    encoder: Encoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    until: str | None = None,
) -> Iterator[dict[int, Answer]]:
    """The same batch by batch: index of the prompt → its answer.

    until: a text that ends an answer too, as the end of its line does where a model completes a text and has learned
    no end of turn. It counts behind the first text only.
    """
    stops = Stops(tuple(encoder.stop_ids), encoder.pad_id)
    for places in of_like_length([len(prompt) for prompt in prompts], batch_size):
        said = continue_prompts(
            model,
            [prompts[i] for i in places],
            stops,
            max_new_tokens=max_new_tokens,
            processors=[] if until is None else [EndBehind(until, encoder)],
        )
        yield {i: _answer(encoder, continuation, until) for i, continuation in zip(places, said, strict=True)}


class EndBehind:
    """A logits processor that lets nothing but the end of turn follow where `until` has been said."""

    def __init__(self, until: str, encoder: Encoder) -> None:
        self.until, self.encoder = until, encoder
        self.prompt_columns: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: D102 – transformers' interface
        if self.prompt_columns is None:  # at the first token
            self.prompt_columns = input_ids.shape[1]
        said = (self.encoder.decode(ids) for ids in input_ids[:, self.prompt_columns :].tolist())
        over_B = torch.tensor([before(text, self.until) is not None for text in said], device=scores.device)
        ending = torch.full_like(scores[:1], -torch.inf)
        ending[:, self.encoder.end_of_turn_id] = 0
        return torch.where(over_B[:, None], ending, scores)


def before(text: str, until: str) -> str | None:
    """What stands before the first `until` behind any text; None where there is none.

    A model may begin with a line break: answers are looked for behind it.
    """
    end = text.find(until, len(text) - len(text.lstrip()))
    return None if end < 0 else text[:end]


def _answer(encoder: Encoder, said: Continuation, until: str | None) -> Answer:
    ids = said.ids[:-1] if said.ended else said.ids
    text = encoder.decode(ids)
    whole = None if until is None else before(text, until)
    return Answer(text if whole is None else whole, len(ids), truncated=not said.ended and whole is None)
