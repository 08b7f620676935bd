"""Evaluate one model: greedy answers to every task, scores by language, bits per byte on the held-out rows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example, plain
from dudi_kit.data.ledger import Ledger
from dudi_kit.evaluate.answering import all_too_long
from dudi_kit.evaluate.bits import bits_per_byte
from dudi_kit.evaluate.generate import Answer, greedy
from dudi_kit.evaluate.metrics import EXACT_METRICS, METRICS, is_correct, is_null, normalise
from dudi_kit.evaluate.named import aggregates
from dudi_kit.evaluate.progress import Track, silent
from dudi_kit.evaluate.run_named import Asked, NamedData, evaluate_named
from dudi_kit.evaluate.scores import (
    BITS,
    AnswerRow,
    BitsPerByte,
    LanguageScores,
    Mean,
    Missing,
    Scores,
    TaskScores,
    mean_of,
    save_answers,
)
from dudi_kit.recipe.schema.evaluation import Task


@dataclass(frozen=True)
class TaskData:
    """A task of the recipe and its rows."""

    task: Task
    examples: Sequence[Example]


def evaluate_model(
    model: PreTrainedModel,
    encoder: Encoder,
    *,
    tasks: Mapping[str, TaskData],
    held_out: Sequence[Example],
    max_length: int,
    batch_size: int,
    named: Mapping[str, NamedData] | None = None,
    weights: str = "",
    track: Track = silent,
    folder: Path | None = None,
    who: str = "after",
) -> Scores:
    """Everything that the recipe asks about one model.

    max_length: prompt and response of a held-out row, in tokens. Answers to tasks are bound by the model's context.
    named: tasks from files; their answers are kept below `folder` as they come in, for the model that `weights`
    identifies. folder: where every answer is kept for people to read, in `<who>.answers.jsonl`, one JSON object a line.
    """
    ledger = Ledger()
    scores: dict[str, TaskScores] = {}
    missing: list[Missing] = []
    answers: list[AnswerRow] = []
    context = context_of(model, max_length)
    for name, data in tasks.items():
        rows = answer_task(model, encoder, name, data, context, batch_size, track, ledger)
        scores[name] = score_task(name, data.task, rows, ledger)
        missing += missing_languages(name, data, scores[name], encoder, context)
        answers += rows
    if named:
        assert folder is not None, "answers to named tasks are kept as they come in"
        asked = Asked(model, encoder, context, batch_size, folder / "answers" / who, weights)
        outcome = evaluate_named(named, asked, track=track, ledger=ledger)
        scores, missing, answers = scores | outcome.tasks, missing + outcome.missing, answers + outcome.answers
    if folder is not None:
        save_answers(answers, folder / f"{who}.answers.jsonl")
    with track(BITS, len(held_out)) as advance:
        measured = bits_per_byte(
            model, encoder, held_out, max_length=max_length, batch_size=batch_size, ledger=ledger, progress=advance
        )
    missing += missing_bits(measured, held_out, tasks, encoder, max_length)
    bits = {language: result for language, result in measured.items() if math.isfinite(result.nats)}
    mean = mean_of({language: result.value for language, result in bits.items()})
    return Scores(scores, bits, mean, missing, aggregates(scores), ledger.as_json())


def score_task(name: str, task: Task, rows: Sequence[AnswerRow], ledger: Ledger) -> TaskScores:
    """Scores of the answers of one task, by language, and their means; `ledger` tells which rows were not answered."""
    languages = {}
    for language in sorted({row.language for row in rows}):
        mine = [row for row in rows if row.language == language]
        said, gold = [row.answer for row in mine], [row.reference for row in mine]
        languages[language] = LanguageScores(
            rows=len(mine),
            metrics={metric: METRICS[metric](said, gold) for metric in task.metrics},
            null=sum(bool(row.null) for row in mine) if task.labels is not None else None,
            truncated=sum(row.truncated for row in mine),
            empty=sum(not row.answer.strip() for row in mine),
            too_long=ledger.counts[_too_long(name), language],
        )
    return TaskScores(languages, _means(task.metrics, languages))


def answer_task(
    model: PreTrainedModel,
    encoder: Encoder,
    name: str,
    data: TaskData,
    context: int,
    batch_size: int,
    track: Track,
    ledger: Ledger,
) -> list[AnswerRow]:
    """Answer every row whose prompt and longest answer fit into the context; count the others."""
    limit = context - data.task.max_new_tokens
    asked: list[tuple[Example, list[int]]] = []
    for example in data.examples:
        ids = encoder.prompt_ids(example.prompt)
        if len(ids) > limit:
            ledger.count(_too_long(name), example.language, str(example.origin))
        else:
            asked.append((example, ids))
    with track(name, len(asked)) as advance:
        said = greedy(
            model,
            encoder,
            [ids for _, ids in asked],
            max_new_tokens=data.task.max_new_tokens,
            batch_size=batch_size,
            progress=advance,
        )
    labels = None if data.task.labels is None else {normalise(label) for label in data.task.labels}
    exact = not EXACT_METRICS.isdisjoint(data.task.metrics)
    return [_row(name, example, answer, labels, exact) for (example, _), answer in zip(asked, said, strict=True)]


def _row(name: str, example: Example, answer: Answer, labels: set[str] | None, exact: bool) -> AnswerRow:
    return AnswerRow(
        task=name,
        language=example.language,
        id=str(example.origin),
        prompt=plain(example.prompt),
        reference=example.response,
        answer=answer.text,
        correct=(correct := is_correct(answer.text, example.response)) if exact else None,
        value=100.0 * correct if exact else None,
        null=None if labels is None else is_null(answer.text, labels),
        truncated=answer.truncated,
        tokens=answer.token_count,
    )


def _means(metrics: Iterable[str], languages: Mapping[str, LanguageScores]) -> dict[str, Mean]:
    means = {
        metric: mean_of({language: scores.metrics[metric].value for language, scores in languages.items()})
        for metric in metrics
    }
    return {metric: mean for metric, mean in means.items() if mean is not None}


def missing_languages(name: str, data: TaskData, scores: TaskScores, encoder: Encoder, context: int) -> list[Missing]:
    """Languages that the recipe names for a task, or that its rows are in, without an answered row."""
    found = {example.language for example in data.examples}

    def reason(language: str) -> str:
        most = data.task.max_new_tokens
        tokens = [len(encoder.prompt_ids(each.prompt)) + most for each in data.examples if each.language == language]
        hint = f"Lower max_new_tokens ({most:,}), or choose a model with a longer context"
        return all_too_long(tokens, context, hint) if tokens else "no rows"

    return [
        Missing(name, language, reason(language))
        for language in sorted((found | _declared(data.task)) - set(scores.languages))
    ]


def _declared(task: Task) -> set[str]:
    if task.data.languages is not None:
        return set(task.data.languages)
    return {task.data.language} if isinstance(task.data.language, str) else set()


def missing_bits(
    bits: Mapping[str, BitsPerByte],
    held_out: Sequence[Example],
    tasks: Mapping[str, TaskData],
    encoder: Encoder,
    max_length: int,
) -> list[Missing]:
    """Languages of the held-out rows or of a task that have no finite bits per byte, with the reason."""
    found = {example.language for example in held_out}
    wanted = found.union(*(_declared(data.task) | {row.language for row in data.examples} for data in tasks.values()))

    def reason(language: str) -> str:
        if language not in found:
            return "no held-out rows"
        if language in bits:
            return "the model's loss is not a finite number"
        rows = [example for example in held_out if example.language == language]
        tokens = [len(encoder.prompt_ids(row.prompt)) + len(encoder.response_ids(row.response)) for row in rows]
        return all_too_long(tokens, max_length, "Raise data.max_length, if the model's context allows")

    measured = {language for language, result in bits.items() if math.isfinite(result.nats)}
    return [Missing(BITS, language, reason(language)) for language in sorted(wanted - measured)]


def _too_long(task: str) -> str:
    return f"row of task {task} not asked: prompt and answer exceed the context"


def context_of(model: PreTrainedModel, max_length: int) -> int:
    """Longest input of the model in tokens; `max_length` where its config does not say."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or max_length)
