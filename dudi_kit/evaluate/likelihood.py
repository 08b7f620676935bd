"""How likely a model finds given answers: to choose among labels, and to see a weak student learn before it can answer.

The subtleties:
- An answer is tokenised apart from its prompt, as a response is in training; the end of turn does not count, so that a
  model is not asked whether it would stop.
- Answers of one question differ in length. The choice goes by the whole answer's log-probability (lm-eval's `acc`);
  by bytes, it would go by how predictable each letter is (`acc_norm`).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from dudi_kit.data.batches import join
from dudi_kit.evaluate.batching import of_like_length
from dudi_kit.evaluate.progress import Advance
from dudi_kit.models.reading import response_nats


class Question(NamedTuple):
    """A prompt and what could be answered to it, as token ids."""

    prompt: list[int]
    answers: list[list[int]]


def answer_nats(
    model: PreTrainedModel,
    questions: Sequence[Question],
    *,
    pad_id: int,
    batch_size: int,
    progress: Advance | None = None,
) -> list[list[float]]:
    """−log p(answer | prompt) of every answer of every question, in their order.

    Batches of like length, the longest first. progress: called with the number of answers that were read.
    """
    asked = [(q, a) for q, question in enumerate(questions) for a in range(len(question.answers))]
    lengths = [len(questions[q].prompt) + len(questions[q].answers[a]) for q, a in asked]
    nats = [[math.nan] * len(question.answers) for question in questions]
    for places in of_like_length(lengths, batch_size):
        some = [asked[i] for i in places]
        inputs = [(questions[q].prompt, questions[q].answers[a]) for q, a in some]
        for (q, a), value in zip(some, _batch_nats(model, inputs, pad_id), strict=True):
            nats[q][a] = value
        if progress is not None:
            progress(len(some))
    return nats


def _batch_nats(model: PreTrainedModel, inputs: Sequence[tuple[list[int], list[int]]], pad_id: int) -> list[float]:
    prompts, answers = zip(*inputs, strict=True)
    with torch.inference_mode():
        return response_nats(model, join(prompts, answers, pad_id=pad_id).to(model.device))


def likeliest(nats: Sequence[float]) -> int | None:
    """Index of the answer with the highest probability; None where a number is missing, or the first two are equal.

    A model that finds all answers the same has chosen none.
    """
    if not nats or not all(map(math.isfinite, nats)):
        return None
    ordered = sorted(nats)
    return None if len(ordered) > 1 and ordered[0] == ordered[1] else nats.index(ordered[0])
