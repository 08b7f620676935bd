"""Greedy answers in batches of like length. What a model answers does not depend on the size of the batch."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedModel

from dudi_kit.data.encode import Encoder
from dudi_kit.evaluate.progress import Advance
from dudi_kit.models.generation import Stops, continue_prompts


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
    """The most probable token at each position, for each prompt (token ids), in the order of `prompts`.

    Prompts are batched by length, the longest first, so that little is padded and lack of memory shows at once.
    """
    stops = Stops(tuple(encoder.stop_ids), encoder.pad_id)
    answers: dict[int, Answer] = {}
    by_length = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(by_length), batch_size):
        rows = by_length[start : start + batch_size]
        said = continue_prompts(model, [prompts[i] for i in rows], stops, max_new_tokens=max_new_tokens)
        for row, continuation in zip(rows, said, strict=True):
            ids = continuation.ids[:-1] if continuation.ended else continuation.ids
            answers[row] = Answer(encoder.decode(ids), len(ids), truncated=not continuation.ended)
        if progress is not None:
            progress(len(rows))
    return [answers[i] for i in range(len(prompts))]
