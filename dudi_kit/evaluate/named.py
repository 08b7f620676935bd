"""Answers to a named task → its scores in each language, with intervals, and with what a floor at 0 hides."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, get_args

from dudi_kit.data.example import plain
from dudi_kit.errors import DataError
from dudi_kit.evaluate.instructions import followed
from dudi_kit.evaluate.likelihood import likeliest
from dudi_kit.evaluate.scores import (
    AnswerRow,
    LanguageScores,
    MetricScore,
    RightAnswer,
    TaskScores,
    Unfloored,
)
from dudi_kit.evaluate.seahelm.aggregate import Aggregates, TaskScore, aggregate
from dudi_kit.evaluate.seahelm.classification import above_chance
from dudi_kit.evaluate.seahelm.metrics import MEANS_OF_ITEMS, Mode, Rows, Scored
from dudi_kit.evaluate.seahelm.metrics import score as seahelm_score
from dudi_kit.evaluate.seahelm.official import OF_COMPETENCY
from dudi_kit.evaluate.seahelm.weak import weak
from dudi_kit.evaluate.statistics import interval, items_of
from dudi_kit.evaluate.store import Said
from dudi_kit.evaluate.task_rows import LanguageRows, TaskRow
from dudi_kit.recipe.schema.task import TaskFile, TaskMetric

FIGURES: dict[TaskMetric, str] = {
    "balanced_accuracy": "normalised accuracy",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "chrf++": "chrF++",
    "strict_pass": "strict pass",
}
"""Metric of a task file → what its score is called. The first is 0 for guessing and 100 for all right."""

RIGHT = 100.0
"""Percent that a right answer is worth."""


class Heard(NamedTuple):
    """A row that was answered."""

    row: TaskRow
    said: Said

    @property
    def response(self) -> str:
        """The answer as a text, tag included; of likelihoods, the likeliest answer, or none."""
        if self.said.response is not None:
            return self.row.opening + self.said.response
        chosen = likeliest([math.nan if nats is None else nats for nats in self.said.nats])
        return "" if chosen is None else self.row.opening + self.row.answers[chosen]

    @property
    def right_nats(self) -> float | None:
        """−log p of the right answer."""
        place = self.row.gold if len(self.said.nats) > 1 else 0
        return self.said.nats[place] if self.said.nats else None


def score_language(
    task: TaskFile, asked: LanguageRows, said: Mapping[str, Said], language: str, *, seconds: float | None
) -> tuple[LanguageScores, list[AnswerRow]]:
    """One task in one language. said: id of the row → answer; rows without one were too long.

    DataError, EnvironmentLack: there is no score, for the reason that the error says.
    """
    heard = [Heard(row, said[row.id]) for row in asked.rows if row.id in said]
    if not heard:
        raise DataError("no row was answered" if asked.rows else "no rows")
    rows = _rows(task, asked, heard, language)
    if rows.silent:
        raise DataError(f"all {len(heard):,} answers are empty: a model that says nothing has no score")
    main = seahelm_score(task.metric, rows)
    strata = [item.row.references[0] for item in heard] if task.has_labels else None
    scores = LanguageScores(
        rows=len(heard),
        metrics={FIGURES[task.metric]: _score(task.metric, main, strata, asked.labels)},
        null=int(main.figures["null_count"]) if "null_count" in main.figures else None,
        truncated=sum(item.said.truncated for item in heard),
        empty=sum(not (item.said.response or "").strip() for item in heard if item.said.response is not None),
        too_long=len(asked.rows) - len(heard),
        figures=main.figures,
        items_mean=_mean(main.items),
        right_answer=_right_answer(heard),
        weak=weak(rows, main, [item.said.truncated for item in heard]),
        choices=len(asked.labels) or None,
        of_rows=asked.whole,
        seconds=seconds,
        source=f"{asked.source}; prompts by {asked.prompts}",
        data=dict(asked.data),
    )
    return scores, [_answer_row(item, main, i, strata) for i, item in enumerate(heard)]


def _rows(task: TaskFile, asked: LanguageRows, heard: Sequence[Heard], language: str) -> Rows:
    spoken = task.answer_language or language
    return Rows(
        language=language,
        responses=[item.response for item in heard],
        tag=re.escape(asked.tag),
        references=[item.row.references for item in heard],
        labels=asked.labels or None,
        followed=[followed(item.response, item.row.checks, spoken) for item in heard]
        if task.metric == "strict_pass"
        else (),
        answer_languages=None if spoken == language else [spoken] * len(heard),
    )


def _score(metric: TaskMetric, found: Scored, strata: Sequence[str] | None, labels: Sequence[str]) -> MetricScore:
    judged = [item for item in found.items if item is not None]
    if metric not in MEANS_OF_ITEMS or len(judged) < 2:
        return MetricScore(found.value)
    measured = interval(items_of([item / 100 for item in judged], strata))
    if measured is None:
        return MetricScore(found.value)
    low, high = (100 * bound for bound in measured)
    if metric != "balanced_accuracy":
        return MetricScore(found.value, (low, high))
    low, high = (_above_chance(bound, len(labels)) for bound in (low, high))
    bare = Unfloored(_above_chance(found.figures["accuracy"], len(labels)), (low, high)) if low < 0 else None
    return MetricScore(found.value, (max(low, 0.0), max(high, 0.0)), unfloored=bare)


def _above_chance(percent: float, choices: int) -> float:
    return 100 * above_chance(percent / 100, choices)


def _mean(items: Sequence[float | None]) -> float | None:
    judged = [item for item in items if item is not None]
    return math.fsum(judged) / len(judged) if judged else None


def _right_answer(heard: Sequence[Heard]) -> RightAnswer | None:
    known = [(item.right_nats, item.row.answers[item.row.gold]) for item in heard if item.row.answers]
    finite = [(nats, text) for nats, text in known if nats is not None]
    size = sum(len(text.encode()) for _, text in finite)
    return RightAnswer(math.fsum(nats for nats, _ in finite), len(finite), size) if size else None


def _answer_row(item: Heard, main: Scored, place: int, strata: Sequence[str] | None) -> AnswerRow:
    row, value, parsed = item.row, main.items[place], main.parsed[place]
    labelled = main.metric == "balanced_accuracy"
    return AnswerRow(
        task=row.task,
        language=row.language,
        id=row.id,
        prompt=plain(row.prompt) if not isinstance(row.prompt, str) else row.prompt,
        reference=row.references[0] if row.references else "",
        answer=item.response,
        correct=value == RIGHT if labelled else None,
        null=parsed is None if labelled else not parsed,
        truncated=item.said.truncated,
        tokens=item.said.tokens,
        value=value,
        stratum=strata[place] if strata else None,
        parsed=parsed,
    )


def aggregates(tasks: Mapping[str, TaskScores]) -> list[Aggregates]:
    """Means of the named tasks in both of SEA-HELM's ways; none where there is no named task."""
    if all(scored.about is None for scored in tasks.values()):
        return []
    return [aggregate(list(_task_scores(tasks, mode)), mode) for mode in get_args(Mode)]


def _task_scores(tasks: Mapping[str, TaskScores], mode: Mode) -> Iterator[TaskScore]:
    asked: set[str] = set()
    for entry, scored in tasks.items():
        about = scored.about
        # A task that is asked twice, say with and without examples, is SEA-HELM's once; then it is a task of its own.
        name = (about.seahelm or about.task) if about and about.task not in asked else entry
        asked |= {about.task} if about else set()
        for language, row in scored.languages.items() if about else ():
            assert about is not None
            # The leaderboard takes the plain mean of summaries, a run of SEA-HELM the median of resampled means.
            plain = mode == "leaderboard" and about.metric == "rouge_l"
            yield TaskScore(
                task=name,
                language=language,
                competency=OF_COMPETENCY[about.competency],
                value=row.items_mean if plain else row.metrics[FIGURES[about.metric]].value,
                metric=about.metric,
                whole=row.rows == row.of_rows,
                group=about.group,
            )
