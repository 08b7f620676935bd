"""Greedy answers in batches of like length. What a model answers does not depend on the size of the batch."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedModel

from dudi_kit.data.encode import Encoder
from dudi_kit.evaluate.progress import Advance
from dudi_kit.models.generation import Continuation, Stops, continue_prompts


class Answer(NamedTuple):
    """What a model said to one prompt."""

    text: str
    token_count: int
    """Tokens, the end of turn not counted."""

    truncated: bool
    """It reached `max_new_tokens` before its end of turn."""


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
) -> Iterator[dict[int, Answer]]:
    """The same batch by batch: index of the prompt → its answer.

    Prompts are batched by length, the longest first, so that little is padded and lack of memory shows at once.
    """
    stops = Stops(tuple(encoder.stop_ids), encoder.pad_id)
    by_length = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(by_length), batch_size):
        rows = by_length[start : start + batch_size]
        said = continue_prompts(model, [prompts[i] for i in rows], stops, max_new_tokens=max_new_tokens)
        yield {row: _answer(encoder, continuation) for row, continuation in zip(rows, said, strict=True)}


def _answer(encoder: Encoder, said: Continuation) -> Answer:
    ids = said.ids[:-1] if said.ended else said.ids
    return Answer(encoder.decode(ids), len(ids), truncated=not said.ended)
