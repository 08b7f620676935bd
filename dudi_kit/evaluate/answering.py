"""Rows of a task → what a model says to each: generated, or by the likelihood of given answers; kept as it comes in."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from dudi_kit.data.encode import Encoder
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError
from dudi_kit.evaluate.batching import of_like_length
from dudi_kit.evaluate.generate import Answer, greedy_batches
from dudi_kit.evaluate.likelihood import Question, answer_nats
from dudi_kit.evaluate.progress import Advance
from dudi_kit.evaluate.store import Answers, Said
from dudi_kit.evaluate.task_rows import TaskRow
from dudi_kit.recipe.schema.task import Scoring


class AllTooLong(DataError):
    """No row of a task fits into the model's context."""


def all_too_long(tokens: Sequence[int], room: int, hint: str) -> str:
    """Why no row was asked. tokens: of each row with its answer; room: for them; hint: what helps."""
    lengths = f"{min(tokens):,} to {max(tokens):,} tokens"
    return f"every row is too long: prompt and answer are {lengths}, and there is room for {room:,}. {hint}"


TOO_LONG = "row of task {} not asked: prompt and answer exceed the context"


@dataclass(frozen=True)
class Asking:
    """How the rows of a task are answered."""

    scoring: Scoring
    """`logprob` reads the likelihood of every choice; `generation` writes an answer, and reads the likelihood of the
    right one, which shows what a student knows that can't answer yet."""

    max_new_tokens: int
    batch_size: int
    context: int
    """Longest input of the model in tokens."""

    until: str | None = None
    """What ends a written answer besides an end of turn."""


@dataclass(frozen=True)
class _Asked:
    """A row as token ids."""

    row: TaskRow
    key: str
    question: Question
    tokens: int
    """Of the prompt and the longest answer."""


def answer_rows(
    model: PreTrainedModel,
    encoder: Encoder,
    rows: Sequence[TaskRow],
    how: Asking,
    answers: Answers,
    *,
    ledger: Ledger,
    progress: Advance,
) -> dict[str, Said]:
    """Id of the row → what was said. Rows answered before are not asked; nor are those too long, which are counted.

    AllTooLong: all of them are too long.
    """
    every = [_asked(row, encoder, how, answers) for row in rows]
    asked = [item for item in every if item.tokens <= how.context]
    for item in every:
        if item.tokens > how.context:
            ledger.count(TOO_LONG.format(item.row.task), item.row.language, f"{item.row.task}:{item.row.id}")
    if every and not asked:
        hint = "Show fewer worked examples (shots), or choose a model with a longer context"
        raise AllTooLong(all_too_long([item.tokens for item in every], how.context, hint))
    fresh = [item for item in asked if item.key not in answers]
    progress(len(rows) - len(fresh))
    for some in _answered(model, encoder, fresh, how):
        answers.add(some)
        progress(len(some))
    answers.keep_only(item.key for item in asked)
    return {item.row.id: answers[item.key] for item in asked}


def _asked(row: TaskRow, encoder: Encoder, how: Asking, answers: Answers) -> _Asked:
    prompt = encoder.completion_ids(row.prompt) if isinstance(row.prompt, str) else encoder.prompt_ids(row.prompt)
    texts = row.answers if how.scoring == "logprob" else row.answers[row.gold : row.gold + 1]
    # A space between a tag and its answer is the first piece of the answer, as it is where a model goes on.
    question = Question(prompt, [encoder.text_ids(text) for text in texts])
    limit, until = (how.max_new_tokens, how.until) if how.scoring == "generation" else (0, None)
    longest = max(limit, *map(len, question.answers), 0)
    key = answers.key(how.scoring, limit, until, prompt, question.answers)
    return _Asked(row, key, question, len(prompt) + longest)


def _answered(model: PreTrainedModel, encoder: Encoder, asked: Sequence[_Asked], how: Asking) -> Iterator[list[Said]]:
    """Answers in batches of like length, each ready to be kept."""
    if how.scoring == "generation":
        for said in greedy_batches(
            model,
            encoder,
            [item.question.prompt for item in asked],
            max_new_tokens=how.max_new_tokens,
            batch_size=how.batch_size,
            until=how.until,
        ):
            items = [asked[i] for i in said]
            yield list(map(_said, items, said.values(), _nats(model, encoder, items, how)))
        return
    for places in of_like_length([item.tokens for item in asked], how.batch_size):
        items = [asked[i] for i in places]
        yield [_said(item, None, nats) for item, nats in zip(items, _nats(model, encoder, items, how), strict=True)]


def _nats(model: PreTrainedModel, encoder: Encoder, items: Sequence[_Asked], how: Asking) -> list[list[float]]:
    return answer_nats(model, [item.question for item in items], pad_id=encoder.pad_id, batch_size=how.batch_size)


def _said(item: _Asked, answer: Answer | None, nats: Sequence[float]) -> Said:
    return Said(
        key=item.key,
        id=item.row.id,
        response=None if answer is None else answer.text,
        tokens=0 if answer is None else answer.token_count,
        truncated=answer is not None and answer.truncated,
        nats=[value if math.isfinite(value) else None for value in nats],
    )
