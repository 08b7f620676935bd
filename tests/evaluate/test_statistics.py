"""Intervals that hold what they promise, by simulation; paired tests and seeds against independent ways."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from dudi_kit.evaluate.statistics import (
    Items,
    across_runs,
    adjusted,
    interval,
    items_of,
    of_means,
    paired,
    replicates,
)

Draw = Callable[[np.random.Generator], Items]
TRIALS = 1000


def _accuracy(rows: int, p: float) -> Draw:
    return lambda rng: items_of((rng.random(rows) < p).astype(float))


def _balanced(classes: dict[int, tuple[int, float]]) -> Draw:
    """classes: number → (rows, share of right answers)."""

    def draw(rng: np.random.Generator) -> Items:
        right = np.concatenate([rng.random(n) < p for n, p in classes.values()]).astype(float)
        return items_of(right, np.repeat(list(classes), [n for n, _ in classes.values()]))

    return draw


def _token_f1(rows: int) -> Draw:
    """Three tenths all wrong, two tenths all right, the rest in between."""

    def draw(rng: np.random.Generator) -> Items:
        kind, between = rng.random(rows), rng.beta(2, 3, rows)
        return items_of(np.where(kind < 0.3, 0, np.where(kind < 0.5, 1, between)))

    return draw


THREE = {0: (100, 0.8), 1: (60, 0.5), 2: (40, 0.3)}
SEVEN = {i: (15, p) for i, p in enumerate((0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2))}
RARE = {0: (80, 0.8), 1: (10, 0.5), 2: (8, 0.3)}


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        pytest.param(_accuracy(200, 0.6), 0.6, id="accuracy of 200"),
        pytest.param(_accuracy(400, 0.9), 0.9, id="accuracy of 400, high"),
        pytest.param(_balanced(THREE), (0.8 + 0.5 + 0.3) / 3, id="three classes of unequal size"),
        pytest.param(_balanced(SEVEN), 3.6 / 7, id="seven classes of 15"),
        pytest.param(_balanced(RARE), (0.8 + 0.5 + 0.3) / 3, id="two rare classes"),
        pytest.param(_token_f1(100), 0.2 + 0.5 * 0.4, id="token F1 of 100"),
    ],
)
def test_95_per_cent_intervals_hold_the_truth_93_to_97_times_of_100(draw: Draw, truth: float) -> None:
    rng = np.random.default_rng(20260604)
    found = [interval(draw(rng)) for _ in range(TRIALS)]
    held = [low <= truth <= high for low, high in (f for f in found if f is not None)]
    assert len(held) == TRIALS
    assert 0.93 <= np.mean(held) <= 0.97


def test_intervals_over_several_seeds_hold_the_truth_too() -> None:
    """Runs differ in what they get right on average, items in how hard they are."""
    rng = np.random.default_rng(7)

    def held() -> bool:
        hard_N = rng.normal(0, 0.2, 200)
        runs = [items_of(0.5 + rng.normal(0, 0.03) + hard_N + rng.normal(0, 0.1, 200)) for _ in range(3)]
        low, high = across_runs(runs).interval or (1.0, 0.0)
        return low <= 0.5 <= high

    assert 0.93 <= np.mean([held() for _ in range(TRIALS)]) <= 0.98


def test_balanced_accuracy_is_the_mean_over_gold_classes() -> None:
    gold, said = ["a", "a", "b", "c", "c", "c"], ["a", "b", "b", "c", None, "c"]
    items = items_of([float(g == s) for g, s in zip(gold, said, strict=True)], gold)
    assert items.score == pytest.approx(balanced_accuracy_score(gold, [s or "-" for s in said]))


def test_one_stratum_agrees_with_scipys_bootstrap() -> None:
    items = _token_f1(400)(np.random.default_rng(0))
    theirs = stats.bootstrap((items.values_N,), np.mean, method="percentile", n_resamples=4000, rng=1)
    assert interval(items) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)


def test_rare_classes_are_drawn_as_often_as_they_occur() -> None:
    """The variance of balanced accuracy by hand: Σ p(1−p)/(n−1) / classes²; drawing n of n would give (n−1)/n of it."""
    items = items_of([1, 0, 0, 1, 1, 0, 1, 1, 1, 1], ["a"] * 3 + ["b"] * 7)
    by_hand = ((1 / 3) * (2 / 3) / 2 + (6 / 7) * (1 / 7) / 6) / 4
    assert replicates(items, resamples=200_000).var() == pytest.approx(by_hand, rel=0.02)


def test_all_right_is_no_proof_of_100_per_cent() -> None:
    low, high = interval(items_of([1.0] * 50, ["a", "b"] * 25)) or (0, 0)
    assert low == pytest.approx(50 / (50 + 1.959964**2))  # Wilson's limit by hand
    assert high == 1


@pytest.mark.parametrize("values", [[1.0], [0.37, 0.37]])
def test_what_says_nothing_about_its_uncertainty_has_no_interval(values: list[float]) -> None:
    assert interval(items_of(values)) is None


def test_paired_p_agrees_with_mcnemars_exact_test() -> None:
    first = items_of([1.0] * 60 + [1.0] * 18 + [0.0] * 6 + [0.0] * 16)
    second = items_of([1.0] * 60 + [0.0] * 18 + [1.0] * 6 + [0.0] * 16)
    difference = paired(first, second)
    assert difference.value == pytest.approx(0.12)
    assert difference.p == pytest.approx(stats.binomtest(6, 24, 0.5).pvalue, abs=0.005)
    assert difference.interval is not None
    assert 0 < difference.interval.low < 0.12 < difference.interval.high


def test_pairing_sees_what_two_intervals_hide() -> None:
    rng = np.random.default_rng(3)
    hard_N = rng.random(200)
    better, worse = items_of(hard_N), items_of(hard_N - 0.02 + rng.normal(0, 0.01, 200))
    apart = [interval(items) for items in (better, worse)]
    assert apart[0] is not None
    assert apart[1] is not None
    assert apart[0].low < apart[1].high
    assert paired(better, worse).p < 0.001


def test_no_difference_has_p_1_and_no_interval() -> None:
    same = items_of([1.0, 0.0, 1.0])
    difference = paired(same, same)
    assert (difference.value, difference.interval, difference.p) == (0, None, 1)


def test_p_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(5)
    p = [paired(items_of(rng.random(40)), items_of(rng.random(40))).p for _ in range(150)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_other_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same items in the same order"):
        paired(items_of([1.0, 0.0]), items_of([1.0, 0.0], ["a", "b"]))


def test_across_runs_by_hand() -> None:
    """Runs of 0.5 and 0.7 without variance among items: mean ± t₁ · sd/√2, the seeds alone."""
    found = across_runs([items_of([0.5] * 10), items_of([0.7] * 10)])
    half = stats.t.ppf(0.975, 1) * np.std([0.5, 0.7], ddof=1) / np.sqrt(2)
    assert found.value == pytest.approx(0.6)
    assert found.interval == pytest.approx((0.6 - half, 0.6 + half))


def test_a_single_run_has_no_interval_over_seeds() -> None:
    assert across_runs([items_of([1.0, 0.0])]).interval is None


def test_a_mean_over_languages_is_surer_than_each() -> None:
    languages = [_accuracy(100, 0.6)(np.random.default_rng(i)) for i in range(4)]
    parts = [replicates(items, seed=i) for i, items in enumerate(languages)]
    one, four = of_means(parts[:1]), of_means(parts)
    assert one is not None
    assert four is not None
    assert (four.high - four.low) / (one.high - one.low) == pytest.approx(0.5, abs=0.06)


def test_many_comparisons_are_adjusted_by_hand() -> None:
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([0.6, 0.5]) == [1.0, 1.0]
    assert adjusted([]) == []
