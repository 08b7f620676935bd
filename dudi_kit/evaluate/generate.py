"""Greedy answers in batches of like length. What a model answers does not depend on the size of the batch."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dudi_kit.data.encode import Encoder
from dudi_kit.evaluate.batching import of_like_length
from dudi_kit.evaluate.progress import Advance
from dudi_kit.models.generation import Continuation, Stops, continue_prompts, likeliest


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
            choose=likeliest if until is None else EndBehind(until, encoder),
        )
        yield {i: _answer(encoder, continuation, until) for i, continuation in zip(places, said, strict=True)}


class EndBehind:
    """Greedy, and the end of turn where `until` has been said (a `dudi_kit.models.generation.Choose`)."""

    def __init__(self, until: str, encoder: Encoder) -> None:
        self.until, self.encoder = until, encoder
        self.said: dict[int, list[int]] = defaultdict(list)

    def __call__(self, logits_bV: Tensor, row_b: Tensor, position: int) -> Tensor:  # noqa: D102 – as `Choose` says
        chosen_b = likeliest(logits_bV, row_b, position)
        over_b = [before(self.encoder.decode(self.said[row]), self.until) is not None for row in row_b.tolist()]
        chosen_b = chosen_b.masked_fill(torch.tensor(over_b, device=chosen_b.device), self.encoder.end_of_turn_id)
        for row, token in zip(row_b.tolist(), chosen_b.tolist(), strict=True):
            self.said[row].append(token)
        return chosen_b


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
