from typing import get_args

import numpy as np
import pytest
import sacrebleu
from scipy.stats import beta
from sklearn.metrics import f1_score

from dudi_kit.evaluate.metrics import METRICS, _macro_f1_of, accuracy, chrf, is_null, macro_f1, normalise
from dudi_kit.recipe.schema.evaluation import Metric


def test_the_table_has_every_metric_of_the_recipe():
    assert set(METRICS) == set(get_args(Metric))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  Positif. ", "positif"),
        ("tích  cực\n", "tích cực"),
        ("ti\u0301ch cu\u031b\u0323c", "tích cực"),  # decomposed
        ("အပြုသဘော။", "အပြုသဘော"),
        ("วิชชมาน ！", "วิชชมาน"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("50%", "50%"),
        ("(a)", "(a)"),
        ("...", "..."),
        ("", ""),
    ],
)
def test_normalisation_by_hand(text, normal):
    assert normalise(text) == normal


def test_normalisation_is_idempotent_for_letters_that_folding_decomposes():
    text = "ǰ ΐ İ"
    assert normalise(normalise(text)) == normalise(text)


def test_accuracy_by_hand_with_wilson_interval():
    score = accuracy(["Ya.", "tidak", "ya", ""], ["ya", "tidak", "tidak", "ya"])
    assert score.value == 50.0
    z = 1.959963984540054
    centre, half = (0.5 + z * z / 8) / (1 + z * z / 4), z * np.sqrt(0.25 / 4 + z * z / 64) / (1 + z * z / 4)
    assert score.interval == pytest.approx((100 * (centre - half), 100 * (centre + half)))
    assert score.unit == "percent"


def test_accuracy_of_nothing_right_has_an_interval_above_zero():
    score = accuracy(["x"] * 10, ["y"] * 10)
    assert score.value == 0.0
    assert score.interval[0] == pytest.approx(0.0)
    assert 0 < score.interval[1] < 100 * beta.ppf(0.995, 1, 10)


def test_macro_f1_by_hand_counts_null_answers_as_wrong():
    gold = ["a", "a", "b", "b"]
    said = ["a", "??", "b", "a"]
    # a: 1 hit, 1 false alarm, 1 miss: 2/(2+1+1) = 1/2. b: 1 hit, 0 false alarms, 1 miss: 2/3.
    assert macro_f1(said, gold).value == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)


def test_macro_f1_averages_only_labels_that_occur_among_the_references():
    assert macro_f1(["a", "positive"], ["a", "a"]).value == pytest.approx(100 * 2 / 3)


def test_macro_f1_interval_holds_the_value_is_reproducible_and_narrows_with_rows():
    rng = np.random.default_rng(1)
    gold = rng.choice(["a", "b", "c"], 60).tolist()
    said = [g if rng.random() < 0.6 else "a" for g in gold]
    few, many = macro_f1(said, gold), macro_f1(said * 10, gold * 10)
    assert few.interval == macro_f1(said, gold).interval
    assert few.interval[0] < few.value < few.interval[1]
    assert many.interval[1] - many.interval[0] < 0.5 * (few.interval[1] - few.interval[0])


def test_vectorised_macro_f1_equals_scikit_learn():
    rng = np.random.default_rng(2)
    gold, said = rng.integers(0, 3, (5, 40)), rng.integers(-1, 3, (5, 40))
    ours = _macro_f1_of(gold, said, 3)
    theirs = [
        f1_score(g, s, labels=[0, 1, 2], average="macro", zero_division=0) for g, s in zip(gold, said, strict=True)
    ]
    assert ours == pytest.approx(theirs)


@pytest.mark.parametrize(("said", "gold"), [(["a"], ["a"]), (["a", "a"], ["a", "a"]), (["x", "x"], ["a", "a"])])
def test_macro_f1_of_degenerate_rows_warns_nothing(said, gold, recwarn):
    macro_f1(said, gold)
    assert not recwarn.list


def test_chrf_equals_sacrebleu():
    said = ["Kucing itu tidur", "แมวนอน", ""]
    gold = ["Kucing itu sedang tidur", "แมวกำลังนอน", "பூனை"]
    assert chrf(said, gold).value == sacrebleu.corpus_chrf(said, [gold]).score
    assert chrf(gold, gold).value == pytest.approx(100.0)


def test_null_answers_are_those_outside_the_labels():
    labels = {normalise(text) for text in ["Positif", "เชิงบวก"]}
    assert not is_null(" positif.", labels)
    assert not is_null("เชิงบวก", labels)
    assert is_null("", labels)
    assert is_null("positif sekali", labels)
