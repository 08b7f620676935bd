"""Is the difference real? The student after against its baseline and its teacher, item by item.

Items are paired by task, language, id and right answer. Differences are in the points that the tables show: where a
score is normalised against guessing, in those, without a floor.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dudi_kit.evaluate.scores import AnswerRow, Scores
from dudi_kit.evaluate.statistics import Difference, Items, adjusted, items_of, paired, paired_mean
from dudi_kit.recipe.schema.evaluation import Subject
from dudi_kit.report.compare import MEAN

OPPONENTS: tuple[Subject, ...] = ("before", "teacher")

ItemKey = tuple[str, str]
"""Id and right answer: a task file that was changed has other items under the same ids."""

Answers = Mapping[tuple[str, str], Mapping[ItemKey, AnswerRow]]
"""(task, language) → its items that have a value of their own."""


class Scale(NamedTuple):
    """Share of the items' worth → points that are shown."""

    chance: float = 0.0
    """Share that guessing is worth, which is shown as 0."""

    @property
    def slope(self) -> float:
        """Points that a share of 1 is worth."""
        return 100 / (1 - self.chance)

    def points(self, share: float) -> float:
        """Of a score from 0 to 1."""
        return 100 * (share - self.chance) / (1 - self.chance)


@dataclass(frozen=True)
class PairedRow:
    """One task in one language, or its mean over languages: after − the other."""

    task: str
    language: str
    items: int
    """That both have answered."""

    difference: Difference
    """In points."""

    p: float
    """Adjusted over all that are shown."""


def paired_rows(
    answers: Mapping[Subject, Sequence[AnswerRow]], scores: Mapping[Subject, Scores]
) -> dict[Subject, list[PairedRow]]:
    """Opponent → its rows: every task and language that both have answered, and the mean over these languages."""
    if "after" not in answers or "after" not in scores:
        return {}
    after, scales = by_place(answers["after"]), scales_of(scores["after"])
    found = {
        who: list(_rows(after, by_place(answers[who]), scales)) for who in OPPONENTS if who in answers and who in scores
    }
    p = iter(adjusted([row.difference.p for rows in found.values() for row in rows]))
    return {who: [replace(row, p=next(p)) for row in rows] for who, rows in found.items() if rows}


def by_place(rows: Sequence[AnswerRow]) -> dict[tuple[str, str], dict[ItemKey, AnswerRow]]:
    """The items of each task and language."""
    found: dict[tuple[str, str], dict[ItemKey, AnswerRow]] = {}
    for row in rows:
        if row.value is not None:
            found.setdefault((row.task, row.language), {})[row.id, row.reference] = row
    return found


def scales_of(scores: Scores) -> dict[tuple[str, str], Scale]:
    """(task, language) → its scale, where a score is normalised so that guessing is 0."""
    return {
        (name, language): Scale(1 / row.choices)
        for name, task in scores.tasks.items()
        if task.about is not None and task.about.metric == "balanced_accuracy"
        for language, row in task.languages.items()
        if row.choices
    }


def item_values(rows: Mapping[ItemKey, AnswerRow], keys: Sequence[ItemKey]) -> Items:
    """What the items are worth, from 0 to 1."""
    some = [rows[key] for key in keys]
    strata = [row.stratum for row in some]
    return items_of([(row.value or 0.0) / 100 for row in some], strata if any(strata) else None)


def in_points(difference: Difference, slope: float) -> Difference:
    """A difference of shares in the points of a scale."""
    bounds = difference.interval
    scaled = bounds and type(bounds)(*(slope * bound for bound in bounds))
    return Difference(slope * difference.value, scaled, difference.p)


def _rows(after: Answers, other: Answers, scales: Mapping[tuple[str, str], Scale]) -> Iterator[PairedRow]:
    places = [place for place in after if other.get(place, {}).keys() & after[place].keys()]
    for task in dict.fromkeys(task for task, _ in places):
        pairs: list[tuple[Items, Items]] = []
        for place in sorted(place for place in places if place[0] == task):
            keys = sorted(other[place].keys() & after[place].keys())
            slope = scales.get(place, Scale()).slope
            pair = [item_values(side[place], keys) for side in (after, other)]
            first, second = (items.with_values(np.multiply(slope, items.values_N)) for items in pair)
            pairs.append((first, second))
            yield PairedRow(task, place[1], len(keys), paired(first, second), 1.0)
        if len(pairs) > 1:
            yield PairedRow(task, MEAN, sum(len(first.values_N) for first, _ in pairs), paired_mean(pairs), 1.0)
