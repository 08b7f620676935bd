"""Runs → task → group → competency → language → SEA: unweighted means that say what they cover.

A task without a score is left out of the mean and named beside it; it is never 0, as a failed task is in SEA-HELM. A
mean may be called SEA-HELM's only where all that SEA-HELM averages is in it, and nothing else.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dudi_kit.errors import DataError
from dudi_kit.evaluate.seahelm.metrics import METRICS, Mode
from dudi_kit.evaluate.seahelm.official import (
    OFFICIAL,
    SEA_LANGUAGES,
    OfficialTask,
    official_competencies,
    official_members,
    official_parts,
)

RUNS: Mapping[Mode, int] = {"run-json": 1, "leaderboard": 8}
"""Seeded runs that SEA-HELM joins in each mode."""


@dataclass(frozen=True)
class TaskScore:
    """One task in one language, of one run."""

    task: str
    language: str
    competency: str
    metric: str
    """Name in `metrics.METRICS`."""

    value: float | None
    """The figure that is aggregated, in percent; None where there is no score."""

    whole: bool = True
    """All rows of the full set are in it."""

    group: str | None = None
    """Tasks of one group are averaged first; SEA-HELM has `translations`."""

    run: int = 0
    """Which of several seeded runs."""


@dataclass(frozen=True)
class Covered:
    """A mean and what is in it."""

    name: str
    """What it may be called: `SEA-HELM …` only where it is whole."""

    value: float | None
    """In percent; None where nothing has a score."""

    covers: tuple[str, ...]
    missing: tuple[str, ...]
    """What SEA-HELM has there, or the caller asked for, and is not in the mean."""

    whole: bool
    """It has all that SEA-HELM has there, by SEA-HELM's metrics and on every row, and nothing else."""


@dataclass(frozen=True)
class Aggregates:
    """All means of one model."""

    mode: Mode
    tasks: dict[str, dict[str, dict[str, Covered]]]
    """Language → competency → task, or group of tasks."""

    competencies: dict[str, dict[str, Covered]]
    """Language → competency."""

    languages: dict[str, Covered]
    overall: Covered


def aggregate(scores: Sequence[TaskScore], mode: Mode) -> Aggregates:
    """Join the scores of one model, which were computed in the same mode.

    `run-json`: one run, and the overall mean goes over all languages that there are. `leaderboard`: a task is the mean
    of its runs, and the overall mean goes over the seven SEA languages. The leaderboard's notebook draws one of the
    runs for each row, 30 times; what it prints differs from the mean of the runs by the noise of those draws.
    """
    _check(scores, mode)
    places: dict[str, dict[str, list[TaskScore]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        places[score.language][score.competency].append(score)
    tasks = {
        language: {competency: _parts(some, language, mode) for competency, some in found.items()}
        for language, found in places.items()
    }
    competencies = {
        language: {
            competency: _mean(parts, official_parts(language, competency), "tasks", f"{competency} in {language}")
            for competency, parts in found.items()
        }
        for language, found in tasks.items()
    }
    languages = {
        language: _mean(parts, official_competencies(language), "competencies", language)
        for language, parts in competencies.items()
    }
    counted = {name: mean for name, mean in languages.items() if mode == "run-json" or name in SEA_LANGUAGES}
    return Aggregates(
        mode, tasks, competencies, languages, _mean(counted, SEA_LANGUAGES, "languages", f"score, {mode}")
    )


def _parts(scores: Sequence[TaskScore], language: str, mode: Mode) -> dict[str, Covered]:
    """Each task, or group of tasks, of one competency in one language."""
    groups: dict[str, dict[str, list[TaskScore]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        groups[score.group or score.task][score.task].append(score)
    parts: dict[str, Covered] = {}
    for group, members in groups.items():
        tasks = {task: _task(runs, mode) for task, runs in members.items()}
        alone = group in tasks and len(tasks) == 1
        parts[group] = (
            tasks[group]
            if alone
            else _mean(tasks, official_members(language, group), "tasks", f"{group} in {language}")
        )
    return parts


def _task(runs: Sequence[TaskScore], mode: Mode) -> Covered:
    """The mean of a task's runs."""
    place = OFFICIAL.get(runs[0].task)
    values = {f"run {score.run}": score.value for score in runs}
    have = {run: value for run, value in values.items() if value is not None}
    whole = len(have) == RUNS[mode] == len(runs) and all(place is not None and _is_official(s, place) for s in runs)
    what = f"{runs[0].task} in {runs[0].language}"
    return Covered(
        name=f"SEA-HELM {what}" if whole else f"{what} by {_named(runs[0].metric)}",
        value=_average(have.values()),
        covers=tuple(have),
        missing=tuple(run for run in values if run not in have),
        whole=whole,
    )


def _named(metric: str) -> str:
    substituted = METRICS[metric].substitute_for if metric in METRICS else None
    return f"{metric} in place of {substituted}" if substituted else metric


def _is_official(score: TaskScore, place: OfficialTask) -> bool:
    return (
        score.whole
        and score.language in place.languages
        and (score.competency, score.metric, score.group) == (place.competency, place.metric, place.group)
    )


def _mean(parts: Mapping[str, Covered], official: Iterable[str], noun: str, what: str) -> Covered:
    """The mean of those parts that have a value, with its name."""
    wanted = {*official}
    have = {name: part.value for name, part in parts.items() if part.value is not None}
    missing = sorted({*wanted, *parts} - {*have})
    whole = {*parts} == wanted and all(part.whole for part in parts.values())
    partial = sum(not parts[name].whole for name in have)
    return Covered(
        name=f"SEA-HELM {what}" if whole else _partial_name(len(have), len(missing), partial, noun, what),
        value=_average(have.values()),
        covers=tuple(have),
        missing=tuple(missing),
        whole=whole,
    )


def _partial_name(have: int, missing: int, partial: int, noun: str, what: str) -> str:
    name = f"mean over {have} {f'of {have + missing} ' if missing else ''}{noun} ({what})"
    return f"{name}, {partial} of them not as in SEA-HELM" if partial else name


def _average(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else None


def _check(scores: Sequence[TaskScore], mode: Mode) -> None:
    twice = Counter((score.task, score.language, score.run) for score in scores)
    for (task, language, run), count in twice.items():
        if count > 1:
            raise DataError(f"task {task} in {language} has {count} scores of run {run}. Give one score a run")
    for score in scores:
        if score.value is not None and not math.isfinite(score.value):
            raise DataError(
                f"task {score.task} in {score.language}: {score.value} is no score. Pass None for a missing one"
            )
    runs = {score.run for score in scores}
    if mode == "run-json" and len(runs) > 1:
        raise DataError(f"mode run-json is of one run and there are {len(runs)}. Use mode leaderboard to join runs")
