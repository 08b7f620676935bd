"""Evaluate one model on named tasks: ask, keep, score; what has no score is listed with its reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from transformers import PreTrainedModel

from dudi_kit.data.encode import Encoder
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError, EnvironmentLack
from dudi_kit.evaluate.answering import AllTooLong, Asking, answer_rows
from dudi_kit.evaluate.named import FIGURES, aggregates, score_language
from dudi_kit.evaluate.progress import Track
from dudi_kit.evaluate.scores import AnswerRow, LanguageScores, Mean, Missing, Scores, TaskFacts, TaskScores, mean_of
from dudi_kit.evaluate.store import Answers, Said
from dudi_kit.evaluate.task_rows import LanguageRows
from dudi_kit.recipe.schema.evaluation import NamedTask
from dudi_kit.recipe.schema.task import TaskFile


@dataclass(frozen=True)
class NamedData:
    """An entry of `evaluation.tasks` that names a task, with its rows."""

    task: TaskFile
    settings: NamedTask
    rows: Mapping[str, LanguageRows]
    """Language → rows."""

    missing: Mapping[str, str]
    """Language → why it has no rows."""


@dataclass(frozen=True)
class Asked:
    """One model, and how it is asked."""

    model: PreTrainedModel
    encoder: Encoder
    context: int
    """Longest input in tokens."""

    batch_size: int
    answers: Path
    """Folder in which answers are kept as they come in."""

    weights: str
    """Identifies the model: answers of other weights are none of its."""


@dataclass
class Outcome:
    """What an evaluation of named tasks comes to."""

    tasks: dict[str, TaskScores]
    missing: list[Missing]
    answers: list[AnswerRow]


class Words(NamedTuple):
    """What was said to a task in one language."""

    said: Mapping[str, Said]
    """By id of the row."""

    seconds: float | None
    """That it took to say; None where it was said before."""


Listen = Callable[[str, NamedData, str, LanguageRows], Words]
"""(name, task, language, rows) → what was said."""


def evaluate_named(entries: Mapping[str, NamedData], asked: Asked, *, track: Track, ledger: Ledger) -> Outcome:
    """Ask one model every entry in every language of its own. Stopped and called again, it goes on where it was."""

    def listen(name: str, entry: NamedData, language: str, rows: LanguageRows) -> Words:
        began = monotonic()
        return Words(_answers(name, entry, rows, language, asked, track, ledger), monotonic() - began)

    return score_named(entries, listen)


def score_named(entries: Mapping[str, NamedData], listen: Listen) -> Outcome:
    """The scores of what is said; what has no score is listed."""
    found = Outcome({}, [], [])
    for name, entry in entries.items():
        languages: dict[str, LanguageScores] = {}
        found.missing += [Missing(name, language, reason) for language, reason in entry.missing.items()]
        for language, rows in entry.rows.items():
            try:
                said, seconds = listen(name, entry, language, rows)
            except AllTooLong as error:
                found.missing.append(Missing(name, language, str(error)))
                continue
            try:
                scores, answered = score_language(entry.task, rows, said, language, seconds=seconds)
            except (DataError, EnvironmentLack) as error:
                found.missing.append(Missing(name, language, str(error)))
                continue
            languages[language] = scores
            found.answers += [replace(row, task=name) for row in answered]
        found.tasks[name] = TaskScores(languages, _means(entry.task, languages), _facts(entry))
    return found


def named_scores(outcome: Outcome, ledger: Ledger) -> Scores:
    """All that is known about a model that was asked nothing else."""
    return Scores(outcome.tasks, {}, None, outcome.missing, aggregates(outcome.tasks), ledger.as_json())


def _answers(
    name: str, entry: NamedData, rows: LanguageRows, language: str, asked: Asked, track: Track, ledger: Ledger
) -> dict[str, Said]:
    how = Asking(entry.settings.scoring, entry.task.max_new_tokens, asked.batch_size, asked.context, rows.until)
    kept = Answers(asked.answers / f"{name}.{language}.jsonl", asked.weights)
    with track(f"{name} {language}", len(rows.rows)) as advance:
        return answer_rows(asked.model, asked.encoder, rows.rows, how, kept, ledger=ledger, progress=advance)


def _means(task: TaskFile, languages: Mapping[str, LanguageScores]) -> dict[str, Mean]:
    name = FIGURES[task.metric]
    mean = mean_of({language: scores.metrics[name].value for language, scores in languages.items()})
    return {} if mean is None else {name: mean}


def _facts(entry: NamedData) -> TaskFacts:
    task, settings = entry.task, entry.settings
    return TaskFacts(
        task=task.name,
        competency=task.competency,
        group=task.group,
        metric=task.metric,
        mode=settings.mode,
        scoring=settings.scoring,
        shots=getattr(task.shots, settings.mode) if settings.shots is None else settings.shots,
        seahelm=task.seahelm,
    )
