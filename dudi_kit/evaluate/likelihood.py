"""How likely a model finds given answers: to choose among labels, and to see a weak student learn before it can answer.

The subtleties:
- An answer is tokenised apart from its prompt, as a response is in training; the end of turn does not count, so that a
  model is not asked whether it would stop.
- Answers of one question share its prompt, which is read once for all of them (`data.batches`).
- Answers of one question differ in length. The choice goes by the whole answer's log-probability (lm-eval's `acc`);
  by bytes, it would go by how predictable each letter is (`acc_norm`).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from dudi_kit.data.batches import Sharing, join
from dudi_kit.evaluate.batching import of_like_length
from dudi_kit.evaluate.progress import Advance
from dudi_kit.models.packing import sharing_of
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

    Batches of like length, the longest first, and no more than batch_size answers in one. progress: called with the
    number of answers that were read.
    """
    asked = list(_portions(questions, batch_size))
    sharing = sharing_of(model.config)
    last = max if sharing is None else sum  # of a question's answers, where its line ends
    lengths = [len(questions[p.question].prompt) + last(map(len, p.of(questions))) for p in asked]
    nats = [[math.nan] * len(question.answers) for question in questions]
    for places in of_like_length(lengths, batch_size, [portion.stop - portion.start for portion in asked]):
        some = [asked[i] for i in places]
        inputs = [(questions[p.question].prompt, answer) for p in some for answer in p.of(questions)]
        found = iter(_batch_nats(model, inputs, pad_id, sharing))
        for question, start, stop in some:
            nats[question][start:stop] = islice(found, stop - start)
        if progress is not None:
            progress(len(inputs))
    return nats


class _Portion(NamedTuple):
    """Answers of a question that are read together, behind its prompt where the model can do that."""

    question: int
    start: int
    stop: int

    def of(self, questions: Sequence[Question]) -> list[list[int]]:
        return questions[self.question].answers[self.start : self.stop]


def _portions(questions: Sequence[Question], most: int) -> Iterator[_Portion]:
    for number, question in enumerate(questions):
        for start in range(0, len(question.answers), most):
            yield _Portion(number, start, min(start + most, len(question.answers)))


def _batch_nats(
    model: PreTrainedModel, inputs: Sequence[tuple[list[int], list[int]]], pad_id: int, sharing: Sharing | None
) -> list[float]:
    prompts, answers = zip(*inputs, strict=True)
    with torch.inference_mode():
        batch = join(prompts, answers, pad_id=pad_id, sharing=sharing)
        return response_nats(model, batch.to(model.device))


def likeliest(nats: Sequence[float]) -> int | None:
    """Index of the answer with the highest probability; None where a number is missing, or the first two are equal.

    A model that finds all answers the same has chosen none.
    """
    if not nats or not all(map(math.isfinite, nats)):
        return None
    ordered = sorted(nats)
    return None if len(ordered) > 1 and ordered[0] == ordered[1] else nats.index(ordered[0])
