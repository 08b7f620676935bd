import io

import pytest
from rich.console import Console

from dudi_kit.evaluate.scores import BitsPerByte, LanguageScores, MetricScore, Missing, Scores, TaskScores
from dudi_kit.report.compare import compare, number, without_table
from dudi_kit.report.terminal import scores_table


def scores(**accuracy):
    rows = {
        language: LanguageScores(rows=10, metrics={"accuracy": MetricScore(value)}, null=1, truncated=0, empty=0)
        for language, value in accuracy.items()
    }
    return Scores({"topic": TaskScores(rows, {})}, {}, None, [])


def test_after_minus_before_by_hand_and_the_best_is_marked():
    (table,) = compare({"teacher": scores(th=70.0), "before": scores(th=40.5), "after": scores(th=70.0)})
    (row,) = table.rows
    assert row.change == pytest.approx(29.5)
    assert row.best == {"teacher", "after"}


def test_a_missing_score_is_neither_zero_nor_part_of_a_mean():
    (table,) = compare({"before": scores(th=40.0, id=60.0), "after": scores(th=50.0)})
    by_language = {row.language: row for row in table.rows}
    assert by_language["id"].change is None
    assert by_language["id"].best == frozenset()
    assert {who: score.value for who, score in by_language["mean"].scores.items()} == {"before": 40.0, "after": 50.0}
    assert "mean without id, which not every model has" in table.remarks


def test_where_all_models_score_alike_none_is_best():
    (table,) = compare({"before": scores(th=0.0), "after": scores(th=0.0)})
    assert table.rows[0].best == frozenset()


def test_models_without_a_language_in_common_have_no_mean():
    (table,) = compare({"before": scores(id=60.0), "after": scores(th=50.0)})
    assert [row.language for row in table.rows] == ["id", "th"]


def test_lower_bits_per_byte_are_better():
    def bits(nats):
        return Scores({}, {"th": BitsPerByte(nats, 3, 9)}, None, [Missing("bits per byte", "lo", "no held-out rows")])

    (table,) = compare({"before": bits(5.0), "after": bits(4.0)})
    assert table.rows[0].best == {"after"}
    assert table.rows[0].change < 0
    assert table.remarks == ["lo is missing (before, after): no held-out rows"]


def test_bits_per_byte_of_other_rows_are_told():
    models = {
        who: Scores({}, {"th": BitsPerByte(5.0, 3, size)}, None, []) for who, size in (("before", 9), ("after", 12))
    }
    assert compare(models)[0].remarks == ["not over the same rows, which were too long for some models: th"]


def test_a_task_without_any_score_is_told_outside_the_tables():
    some = scores(th=40.0)
    some.missing.append(Missing("summary", "my", "every row is too long"))
    assert without_table({"after": some}) == ["summary: my is missing (after): every row is too long"]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(scores_table({"after": some}))
    assert "summary: my is missing" in console.export_text()


def test_numbers_for_people():
    assert [number(x, 1, signed=True) for x in (1.25, -1.26, -0.01, None)] == ["+1.2", "−1.3", "0.0", "–"]
    assert number(51.26, 0) == "51"


def test_the_terminal_table_fits_80_columns_and_reads_no_markup():
    some = {"teacher": scores(th=70.0, vi=100.0), "before": scores(th=40.5, vi=0.0), "after": scores(th=60.0)}
    some["teacher"].missing.append(Missing("topic", "[red]lo", "no rows"))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(scores_table(some))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for part in ["topic: accuracy", "th Thai", "70.0", "+19.5", "–", "teacher: 20 rows; 2 null", "[red]lo is missing"]:
        assert part in text


def test_the_terminal_says_when_nothing_was_evaluated():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(scores_table({}))
    assert "nothing was evaluated" in console.export_text()
