"""Means of named tasks on the page: by language and competency, with intervals over items."""

from dataclasses import replace

import numpy as np
import pytest

from dudi_kit.evaluate.named import aggregates
from dudi_kit.evaluate.scores import AnswerRow, LanguageScores, MetricScore, Scores, TaskFacts, TaskScores
from dudi_kit.evaluate.seahelm.weak import Weak
from dudi_kit.recipe.schema.task import Competency, TaskMetric
from dudi_kit.report.benchmarks import competency_cells, coverage_names, data_rows, language_means, weak_rows

LABELS = ("ya", "tidak")


def _facts(competency: Competency, metric: TaskMetric) -> TaskFacts:
    return TaskFacts("task", competency, None, metric, "instruct", "generation", 0, None)


@pytest.fixture
def model() -> Scores:
    """nli: balanced accuracy 75 in id, so 50 above chance; translation: chrF++ 40, which is no mean of its rows."""
    nli = LanguageScores(40, {"normalised accuracy": MetricScore(50.0)}, 0, 0, 0, choices=2, of_rows=40)
    chrf = LanguageScores(10, {"chrF++": MetricScore(40.0)}, 0, 0, 0, of_rows=20)
    tasks = {
        "nli": TaskScores({"id": nli}, {}, _facts("reasoning", "balanced_accuracy")),
        "to_english": TaskScores({"id": chrf}, {}, _facts("generation", "chrf++")),
    }
    return Scores(tasks, {}, None, [], aggregates(tasks))


@pytest.fixture
def answers() -> list[AnswerRow]:
    """20 of each label: all of one right, half of the other."""
    right = [True] * 20 + [True] * 10 + [False] * 10
    return [
        AnswerRow("nli", "id", str(i), "?", LABELS[i // 20], "", hit, False, False, 1, 100.0 * hit, LABELS[i // 20])
        for i, hit in enumerate(right)
    ]


def test_a_cell_has_the_interval_of_its_items_above_chance(model: Scores, answers: list[AnswerRow]) -> None:
    """Half of 20 rows of one of two labels are right: a standard error of √(¼/19)/2 of accuracy, twice above chance."""
    cells = competency_cells(model, answers)
    assert cells["reasoning"]["id"].value == 50
    low, high = cells["reasoning"]["id"].interval or (0, 0)
    error = 100 * 2 * np.sqrt(0.25 / 19) / 2
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert low < 50 < high


def test_a_cell_with_a_score_that_is_no_mean_of_rows_has_no_interval(model: Scores, answers: list[AnswerRow]) -> None:
    assert competency_cells(model, answers)["generation"]["id"] == (40, None, False)


def test_a_cell_with_a_score_below_the_floor_is_marked(model: Scores, answers: list[AnswerRow]) -> None:
    weak = Weak(-10.0, 45.0, 0.0, 0.0, None)
    model.tasks["nli"].languages["id"] = replace(model.tasks["nli"].languages["id"], weak=weak)
    assert competency_cells(model, answers)["reasoning"]["id"].floored


def test_what_was_scored_on_is_told_once(model: Scores) -> None:
    read = {"home/nli.jsonl": "sha256 ab", "hub:o/n": "commit cd"}
    model.tasks["nli"].languages["id"] = replace(model.tasks["nli"].languages["id"], data=read)
    rows = data_rows({"before": model, "after": model})
    assert [(row.task, row.language, row.what, row.hash) for row in rows] == [
        ("nli", "id", what, told) for what, told in read.items()
    ]


def test_language_means_go_over_competencies_and_say_what_they_cover(model: Scores) -> None:
    assert language_means({"after": model}) == {"after": {"id": 45}}
    (name,) = coverage_names({"after": model})
    assert name.startswith("after: 45.0, mean over 1 of 7 languages")


def test_rows_say_how_they_were_asked(model: Scores) -> None:
    first, second = weak_rows(model)
    assert (first.task, first.asked, first.rows) == ("nli", "instruct, 0 shots, generation", "40 of 40")
    assert (second.rows, second.right_answer) == ("10 of 20", None)


def test_a_run_without_named_tasks_has_none_of_it() -> None:
    empty = Scores({}, {}, None, [])
    assert language_means({"after": empty}) == {}
    assert competency_cells(empty, []) == {}
