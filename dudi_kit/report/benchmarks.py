"""The named tasks of an evaluation, for the page: means by language and competency, and what a floor at 0 hides."""

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dudi_kit.evaluate.scores import AnswerRow, LanguageScores, Scores, TaskScores
from dudi_kit.evaluate.seahelm.aggregate import Aggregates
from dudi_kit.evaluate.seahelm.classification import above_chance
from dudi_kit.evaluate.seahelm.metrics import MEANS_OF_ITEMS
from dudi_kit.evaluate.seahelm.official import OF_COMPETENCY
from dudi_kit.evaluate.statistics import Floats, items_of, of_means, replicates
from dudi_kit.recipe.schema.evaluation import Subject
from dudi_kit.report.maps import Cell

MODE = "run-json"
"""Which of SEA-HELM's two ways the pictures show; the numbers of both are in evaluation/*.json."""


@dataclass(frozen=True)
class DataRow:
    """What one task in one language was scored on."""

    task: str
    language: str
    what: str
    hash: str


@dataclass(frozen=True)
class WeakRow:
    """One task in one language of one model, beyond its score."""

    task: str
    language: str
    asked: str
    """How: `instruct, 0 shots, generation`."""

    rows: str
    scores: LanguageScores

    @property
    def right_answer(self) -> float | None:
        """Bits per byte of the right answers."""
        return self.scores.right_answer.bits_per_byte if self.scores.right_answer else None


def language_means(scores: Mapping[Subject, Scores]) -> dict[Subject, dict[str, float]]:
    """Model → language → mean over competencies; only of models that were asked named tasks."""
    means: dict[Subject, dict[str, float]] = {}
    for subject, model in scores.items():
        found = _aggregates(model)
        if found is not None:
            means[subject] = {code: mean.value for code, mean in found.languages.items() if mean.value is not None}
    return means


def coverage_names(scores: Mapping[Subject, Scores]) -> list[str]:
    """What each model's overall mean may be called, with its value."""
    found = {subject: _aggregates(model) for subject, model in scores.items()}
    return [
        f"{subject}: {whole.overall.value:.1f}, {whole.overall.name}"
        for subject, whole in found.items()
        if whole is not None and whole.overall.value is not None
    ]


def competency_cells(model: Scores, answers: Sequence[AnswerRow]) -> dict[str, dict[str, Cell]]:
    """Competency → language → mean over its tasks, with an interval where all of its tasks have one."""
    found = _aggregates(model)
    if found is None:
        return {}
    drawn, below = _drawn(model, answers), _floored(model)
    ours: dict[str, str] = {theirs: competency.replace("_", " ") for competency, theirs in OF_COMPETENCY.items()}
    cells: dict[str, dict[str, Cell]] = defaultdict(dict)
    for language, competencies in found.competencies.items():
        for competency, mean in competencies.items():
            if mean.value is not None:
                measured = _interval(drawn.get((competency, language), []))
                floored = (competency, language) in below
                cells[ours[competency]][language] = Cell(mean.value, measured, floored)
    return dict(cells)


def weak_rows(model: Scores) -> list[WeakRow]:
    """Every named task in every language of a model."""
    return [
        WeakRow(
            name,
            language,
            f"{about.mode}, {about.shots} shots, {about.scoring}",
            f"{row.rows:,} of {row.of_rows:,}" if row.of_rows else f"{row.rows:,}",
            row,
        )
        for name, task in model.tasks.items()
        if (about := task.about) is not None
        for language, row in task.languages.items()
    ]


def data_rows(scores: Mapping[Subject, Scores]) -> list[DataRow]:
    """Files and datasets of every named task, each once: models are asked the same rows."""
    found = {
        DataRow(name, language, what, told): None
        for model in scores.values()
        for name, task in model.tasks.items()
        for language, row in task.languages.items()
        for what, told in row.data.items()
    }
    return list(found)


def _aggregates(model: Scores) -> Aggregates | None:
    return next((each for each in model.aggregates if each.mode == MODE), None)


def _interval(parts: Sequence[Floats | None]) -> tuple[float, float] | None:
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    return of_means(known)


def _floored(model: Scores) -> set[tuple[str, str]]:
    """(competency, language) of every score that lies below the floor."""
    return {
        (OF_COMPETENCY[task.about.competency], language)
        for task in model.tasks.values()
        if task.about is not None
        for language, row in task.languages.items()
        if row.weak is not None and row.weak.unfloored < 0
    }


def _drawn(model: Scores, answers: Sequence[AnswerRow]) -> dict[tuple[str, str], list[Floats | None]]:
    """(competency, language) → resampled scores of each task; None for a task whose score is no mean of its items."""
    rows: dict[tuple[str, str], list[AnswerRow]] = defaultdict(list)
    for answer in answers:
        rows[answer.task, answer.language].append(answer)
    drawn: dict[tuple[str, str], list[Floats | None]] = defaultdict(list)
    for name, task in model.tasks.items():
        if task.about is None:
            continue
        for language in task.languages:
            competency = OF_COMPETENCY[task.about.competency]
            drawn[competency, language].append(_replicates(name, task, language, rows[name, language]))
    return drawn


def _replicates(name: str, task: TaskScores, language: str, rows: Sequence[AnswerRow]) -> Floats | None:
    """In percent, [R]; drawn with a seed of the task's own, or the errors of several tasks would move together."""
    assert task.about is not None, "only named tasks are drawn"
    metric = task.about.metric
    values = [row.value for row in rows if row.value is not None]
    if metric not in MEANS_OF_ITEMS or not values:
        return None
    strata = [row.stratum for row in rows if row.value is not None]
    seed = zlib.crc32(f"{name} {language}".encode())
    drawn = replicates(items_of(values, strata if any(strata) else None), seed=seed)
    if metric != "balanced_accuracy":
        return drawn
    choices = task.languages[language].choices
    assert choices is not None, "a normalised accuracy has labels"
    floored: Floats = np.maximum([100 * above_chance(value / 100, choices) for value in drawn], 0)
    return floored
