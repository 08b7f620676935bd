"""Runs side by side: each task and language with intervals, and paired differences from the first one.

Runs that differ in nothing but `training.seed` are one side, whose rows are worth their mean over the seeds. Items are
paired by task, language, id and right answer; what only some sides have is left out and said.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dudi_kit.errors import RunDirectoryError
from dudi_kit.evaluate.scores import AnswerRow, load_answers, load_scores
from dudi_kit.evaluate.statistics import (
    Difference,
    Interval,
    across_runs,
    adjusted,
    interval,
    paired,
)
from dudi_kit.plan.layout import RunDir
from dudi_kit.recipe.schema.evaluation import Subject
from dudi_kit.report.paired import ItemKey, Scale, by_place, in_points, item_values, scales_of

SEED_AND_PLACE = (("training", "seed"), ("name",), ("description",), ("output",))
"""Settings that don't make another side."""


@dataclass(frozen=True)
class Side:
    """A model of one or several runs."""

    label: str
    answers: tuple[Path, ...]
    """The answers of each run."""


class Standing(NamedTuple):
    """A side in one task and language."""

    value: float
    """In points of 100."""

    interval: Interval | None
    difference: Difference | None
    """From the first side, in percentage points; None for the first one itself."""

    p: float | None
    """Of the difference, adjusted over all that are shown (Holm)."""


@dataclass(frozen=True)
class Line:
    """One task in one language."""

    task: str
    language: str
    items: int
    """That all sides have."""

    standings: list[Standing]
    """Of each side, in their order."""

    normalised: bool
    """The scores are normalised so that guessing is 0, as in the report, without a floor."""


@dataclass(frozen=True)
class Across:
    """All of it."""

    sides: list[Side]
    lines: list[Line]
    remarks: list[str]


def sides_of(folders: Sequence[Path], subject: Subject) -> list[Side]:
    """What is compared: of several run directories the model `subject`, of one run its models, `before` first.

    RunDirectoryError: a folder is not there or has no answers.
    """
    for folder in folders:
        if not folder.is_dir():
            raise RunDirectoryError(f"{folder}: no such folder. Name run directories, as in outputs/my-run.")
    if len(folders) == 1:
        files = {who: _answers(folders[0], who) for who in ("before", "after", "teacher")}
        found = [Side(who, (file,)) for who, file in files.items() if file.exists()]
        if not found:
            raise RunDirectoryError(f"{folders[0]} has no answers to compare: call `dudi-kit evaluate` first.")
        return found
    groups: dict[str, list[Path]] = {}
    for folder in folders:
        groups.setdefault(_settings(folder), []).append(folder)
    return [_side(group, subject) for group in groups.values()]


def compare_runs(sides: Sequence[Side]) -> Across:
    """Every task and language that all sides have answered; the first side is what the others are compared with."""
    tables = [[by_place(load_answers(file)) for file in side.answers] for side in sides]
    scales = [scales_of(load_scores(file)) for side in sides for file in map(_scores, side.answers) if file.exists()]
    places = {place: None for runs in tables for table in runs for place in table}
    lines: list[Line] = []
    remarks: list[str] = []
    for task, language in places:
        found = [[table.get((task, language), {}) for table in runs] for runs in tables]
        common = set.intersection(*(set(rows) for runs in found for rows in runs))
        every = {key for runs in found for rows in runs for key in rows}
        if not common:
            remarks.append(f"{task} in {language}: no item that all have answered")
            continue
        if len(common) < len(every):
            remarks.append(f"{task} in {language}: {len(every) - len(common):,} of {len(every):,} items not in all")
        scale = next((each[task, language] for each in scales if (task, language) in each), None)
        lines.append(_line(task, language, found, sorted(common), scale))
    return Across(list(sides), _with_adjusted(lines), remarks)


def _line(
    task: str,
    language: str,
    found: Sequence[Sequence[Mapping[ItemKey, AnswerRow]]],
    keys: list[ItemKey],
    normalised: Scale | None,
) -> Line:
    scale = normalised or Scale()
    sides = [[item_values(rows, keys) for rows in runs] for runs in found]
    means = [runs[0].with_values(np.mean([items.values_N for items in runs], axis=0)) for runs in sides]
    standings = []
    for place, (runs, mean) in enumerate(zip(sides, means, strict=True)):
        measured = across_runs(runs).interval if len(runs) > 1 else interval(mean)
        difference = in_points(paired(mean, means[0]), scale.slope) if place else None
        bounds = Interval(*map(scale.points, measured)) if measured else None
        standings.append(Standing(scale.points(mean.score), bounds, difference, None))
    return Line(task, language, len(keys), standings, normalised is not None)


def _with_adjusted(lines: Sequence[Line]) -> list[Line]:
    p = iter(adjusted([s.difference.p for line in lines for s in line.standings if s.difference]))
    return [
        Line(
            line.task,
            line.language,
            line.items,
            [s._replace(p=next(p)) if s.difference else s for s in line.standings],
            line.normalised,
        )
        for line in lines
    ]


def _side(folders: Sequence[Path], subject: Subject) -> Side:
    files = [_answers(folder, subject) for folder in folders]
    for folder, file in zip(folders, files, strict=True):
        if not file.exists():
            raise RunDirectoryError(f"{folder} has no answers of '{subject}': call `dudi-kit evaluate` first.")
    names = [folder.resolve().name for folder in folders]
    return Side(names[0] if len(names) == 1 else f"{names[0]} (+{len(names) - 1} seeds)", tuple(files))


def _scores(answers: Path) -> Path:
    return answers.with_name(answers.name.replace(".answers.jsonl", ".json"))


def _answers(folder: Path, subject: str) -> Path:
    return RunDir(folder).evaluation / f"{subject}.answers.jsonl"


def _settings(folder: Path) -> str:
    """What makes a side: the recipe without its seed and its name. Scores of what is no run are a side of their own."""
    if not RunDir(folder).resolved.exists():
        return str(folder.resolve())
    try:
        settings = json.loads(RunDir(folder).resolved.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"{folder} is no run directory: {RunDir(folder).resolved.name} can't be read."
        ) from error
    for *above, last in SEED_AND_PLACE:
        section = settings
        for key in above:
            section = section.get(key, {})
        section.pop(last, None)
    return json.dumps(settings, sort_keys=True)
