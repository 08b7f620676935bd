"""The student against its baseline and its teacher: the tests of the page, and the units that it says."""

from pathlib import Path

import pytest
from scipy import stats

from dudi_kit.cli import app
from dudi_kit.evaluate.harness_scores import HarnessScore, HarnessScores, save_harness
from dudi_kit.evaluate.scores import (
    AnswerRow,
    LanguageScores,
    MetricScore,
    Scores,
    TaskFacts,
    TaskScores,
    Unfloored,
    save_answers,
    save_scores,
)
from dudi_kit.plan.layout import RunDir
from dudi_kit.report.paired import paired_rows
from dudi_kit.report.write import write_report

LABELS = ("ya", "tidak")
ABOUT = TaskFacts("nli", "reasoning", None, "balanced_accuracy", "instruct", "generation", 0, None)
NAME = "normalised accuracy"


def answers_of(right: dict[str, list[bool]]) -> list[AnswerRow]:
    return [
        AnswerRow("nli", code, str(i), "?", LABELS[i % 2], "", hit, False, False, 1, 100.0 * hit, LABELS[i % 2])
        for code, hits in right.items()
        for i, hit in enumerate(hits)
    ]


def scores_of(value: float, languages: list[str]) -> Scores:
    rows = {
        code: LanguageScores(
            40, {NAME: MetricScore(value)}, 0, 0, 0, choices=2, data={"home/nli.jsonl": f"sha256 {code}"}
        )
        for code in languages
    }
    return Scores({"nli": TaskScores(rows, {}, ABOUT)}, {}, None, [])


BOTH = [True] * 14 + [False] * 14
RIGHT = {
    "before": {"id": BOTH + [False] * 10 + [True] * 2, "th": [True] * 40},
    "after": {"id": BOTH + [True] * 10 + [False] * 2, "th": [True] * 40},
    "teacher": {"id": [True] * 40, "vi": [True] * 40},
}
"""In Indonesian 10 of 40 are right after alone, and 2 before alone; in Thai nothing differs."""


def found(*who: str):
    return paired_rows(
        {name: answers_of(RIGHT[name]) for name in who},  # type: ignore[misc]
        {name: scores_of(0, list(RIGHT[name])) for name in who},  # type: ignore[misc]
    )


def test_differences_are_in_the_points_of_the_tables_with_mcnemars_p() -> None:
    """8 of 40 rows more of two labels: 20 percent of accuracy, 40 points above chance; 20 in the mean with Thai."""
    indonesian, thai, mean = found("before", "after")["before"]
    exact = stats.binomtest(2, 12, 0.5).pvalue
    assert [(row.language, row.items) for row in (indonesian, thai, mean)] == [("id", 40), ("th", 40), ("mean", 80)]
    assert [row.difference.value for row in (indonesian, thai, mean)] == pytest.approx([40, 0, 20])
    assert indonesian.difference.interval is not None
    assert indonesian.difference.interval.low > 0
    assert [row.difference.p for row in (indonesian, thai, mean)] == pytest.approx([exact, 1, exact], abs=0.01)


def test_p_values_are_adjusted_over_all_that_is_shown() -> None:
    rows = [row for each in found("before", "after", "teacher").values() for row in each]
    assert [row.language for row in rows] == ["id", "th", "mean", "id"], "a language that both have"
    smallest = min(rows, key=lambda row: row.difference.p)
    assert smallest.p == pytest.approx(min(1, 4 * smallest.difference.p))
    assert all(row.p >= row.difference.p for row in rows)


def test_without_a_student_nothing_is_compared() -> None:
    assert found("before", "teacher") == {}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    for who, value in (("before", 0.0), ("after", 20.0), ("teacher", 100.0)):
        save_answers(answers_of(RIGHT[who]), run.evaluation / f"{who}.answers.jsonl")
        save_scores(scores_of(value, list(RIGHT[who])), run.evaluation / f"{who}.json")
    return run


def test_the_page_has_the_tests_and_what_was_scored_on(run: RunDir) -> None:
    page = write_report(run.path).read_text(encoding="utf-8")
    assert "after − before" in page
    assert "after − teacher" in page
    assert "adjusted (Holm)" in page
    assert "<td>home/nli.jsonl</td>" not in page, "without means by language there is no section on benchmarks"
    assert 'id="lm-eval"' not in page


def test_the_page_has_what_lm_eval_measured(run: RunDir) -> None:
    scores = [HarnessScore("arc_id", "acc,none", 0.25, 0.0433, 100)]
    save_harness(HarnessScores("0.4.9", "base", None, "m", "bf16", 100, 8, scores), run.evaluation / "lm_eval.json")
    page = write_report(run.path).read_text(encoding="utf-8")
    assert 'href="#lm-eval"' in page
    assert "<td>arc_id</td><td>acc,none</td><td>100</td><td>0.2500</td><td>0.0433</td>" in page
    (run.evaluation / "lm_eval.json").write_text("{", encoding="utf-8")
    assert "scores of lm-eval" in write_report(run.path).read_text(encoding="utf-8"), "a damaged file is a note"


def test_a_floored_score_shows_the_interval_that_the_floor_hides(run: RunDir) -> None:
    floored = scores_of(0, ["id"])
    low = MetricScore(0.0, (0.0, 0.0), unfloored=Unfloored(-18.7, (-31.2, -6.4)))
    floored.tasks["nli"].languages["id"].metrics[NAME] = low
    save_scores(floored, run.evaluation / "before.json")
    page = write_report(run.path).read_text(encoding="utf-8")
    assert "no floor: −18.7, −31 to −6" in page
    assert "0 to 0" not in page


def test_compare_shows_the_same_points_and_says_so(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert not app(["compare", str(run.path)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "0 is guessing, 100 all right, without a floor: nli." in said
    assert "−20.0" in said, "40 % right before"
    assert "+40.0" in said
