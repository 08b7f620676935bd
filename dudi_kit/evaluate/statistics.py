"""How far a score can be trusted: intervals over items, paired differences, several seeds.

Every score that is a mean over items is described once, as `Items`: a value for each item and the stratum that it
counts in. The score is the mean over strata of the strata's means: plain accuracy, token F1 and ROUGE-L have one
stratum; balanced accuracy has one for each gold class, so that a resample keeps the classes' sizes.

The bootstrap draws n−1 of a stratum's n items (Rao & Wu 1988, JASA 83:231), because n of n understates the variance by
(n−1)/n, which shows where a class has few items. The same items always give the same interval.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

RESAMPLES = 2000
PERMUTATIONS = 9999
CONFIDENCE = 0.95
SEED = 0
MOST_CELLS = 4_000_000
"""Numbers held at a time while items are drawn, 32 MB."""


@dataclass(frozen=True)
class Items:
    """What a score is a mean of."""

    values_N: Floats
    """A value for each item, such as 1 for a right answer and 0 for a wrong one."""

    strata_N: NDArray[np.int64]
    """The stratum of each item, from 0 up."""

    def __post_init__(self) -> None:
        if not len(self.values_N) or self.values_N.shape != self.strata_N.shape:
            raise ValueError(f"items need a value and a stratum each, got {len(self.values_N)}, {len(self.strata_N)}")

    def with_values(self, values_N: Floats) -> "Items":
        """Other values of the same items."""
        return Items(values_N, self.strata_N)

    @property
    def strata(self) -> list[NDArray[np.int64]]:
        """Indices of the items of each stratum; a number that no item has is no stratum."""
        return [np.flatnonzero(self.strata_N == number) for number in np.unique(self.strata_N)]

    @property
    def score(self) -> float:
        """The mean over strata of their means."""
        return float(np.mean([self.values_N[items].mean() for items in self.strata]))


class Interval(NamedTuple):
    """Of 95 % confidence."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Two models on the same items: first − second."""

    value: float
    interval: Interval | None
    p: float
    """Two-sided, of a paired permutation test: how often a difference as large arises when each item's two values are
    exchanged at random."""


def items_of(values: Sequence[float], strata: Sequence[Hashable] | None = None) -> Items:
    """Items from plain values. strata: the class of each item, such as its gold label; default: all in one."""
    if strata is None:
        return Items(np.asarray(values, dtype=np.float64), np.zeros(len(values), dtype=np.int64))
    number = {stratum: i for i, stratum in enumerate(dict.fromkeys(strata))}
    return Items(np.asarray(values, dtype=np.float64), np.array([number[s] for s in strata], dtype=np.int64))


def replicates(items: Items, *, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """The score of each resample: [R]. Two models on the same items, in the same order, get the same draws."""
    rng = np.random.default_rng(seed)
    total_R = np.zeros(resamples)
    strata = items.strata
    for stratum in strata:
        total_R += _stratum_means(items.values_N[stratum], resamples, rng)
    return total_R / len(strata)


def _stratum_means(values_N: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Means of n−1 draws out of n values; of a single value there is nothing to draw."""
    n = len(values_N)
    if n == 1:
        return np.full(resamples, values_N[0])
    at_a_time = max(1, MOST_CELLS // n)
    parts = []
    for start in range(0, resamples, at_a_time):
        size = (min(at_a_time, resamples - start), n - 1)
        parts.append(values_N[rng.integers(n, size=size)].mean(axis=1))
    return np.concatenate(parts)


def interval_of(replicates_R: Floats) -> Interval | None:
    """The middle 95 % of the resamples; None where all are the same, which says nothing about the uncertainty."""
    if np.ptp(replicates_R) == 0:
        return None
    low, high = np.quantile(replicates_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def interval(items: Items) -> Interval | None:
    """Percentile bootstrap over items, stratified; Wilson's where all answers are right or all wrong.

    None where it can't be known: a single item, or values other than 0 and 1 that are all the same.
    """
    found = interval_of(replicates(items))
    return found or _of_all_alike(items)


def _of_all_alike(items: Items) -> Interval | None:
    """200 right answers of 200 are no proof of 100 %, though every resample is."""
    n, right = len(items.values_N), items.values_N.sum()
    if n < 2 or right not in (0, n) or not np.isin(items.values_N, (0, 1)).all():
        return None
    wilson = stats.binomtest(int(right), n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(wilson.low), float(wilson.high))


def paired(first: Items, second: Items) -> Difference:
    """Compare two models on the same items in the same order.

    ValueError: the items are not the same ones.
    """
    return paired_mean([(first, second)])


def paired_mean(pairs: Sequence[tuple[Items, Items]]) -> Difference:
    """Compare two models by the mean of several scores, such as a task's in each language; each pair as in `paired`.

    The scores' items are drawn apart, and the values of all items are exchanged in one test.
    """
    if any(not np.array_equal(first.strata_N, second.strata_N) for first, second in pairs):
        raise ValueError("a paired comparison needs the same items in the same order on both sides")
    parts = [first.with_values(first.values_N - second.values_N) for first, second in pairs]
    value = float(np.mean([part.score for part in parts]))
    drawn = of_means([replicates(part, seed=SEED + place) for place, part in enumerate(parts)])
    weighted = [part.values_N * _weights(part) / len(parts) for part in parts]
    return Difference(value, drawn, _exchange_p(np.concatenate(weighted)))


def _weights(items: Items) -> Floats:
    """What each item's value counts for in the score."""
    weights_N = np.empty(len(items.values_N))
    strata = items.strata
    for stratum in strata:
        weights_N[stratum] = 1 / (len(stratum) * len(strata))
    return weights_N


def _exchange_p(weighted_N: Floats) -> float:
    """Exchanging an item's two values flips the sign of its difference, here times what it counts for."""
    if not weighted_N.any():
        return 1.0
    tested = stats.permutation_test(
        (weighted_N,),
        np.sum,
        permutation_type="samples",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        batch=max(1, MOST_CELLS // len(weighted_N)),
        rng=SEED,
    )
    return float(tested.pvalue)


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Of many comparisons at once: Holm (1979). Below 0.05, the chance of any false finding among them is."""
    adjusted_p = [1.0] * len(p_values)
    largest = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted_p[i] = largest
    return adjusted_p


@dataclass(frozen=True)
class AcrossRuns:
    """A score over several runs that differ in their seed only."""

    value: float
    runs: int
    interval: Interval | None
    """Of a run with another seed on other items; None of a single run, of which the first part can't be known."""


def across_runs(runs: Sequence[Items]) -> AcrossRuns:
    """The mean over runs (seeds) on the same items, with both sources of chance in its interval.

    Variance = bootstrap variance of the items' means over runs + variance between runs / runs; Student's t with
    Welch–Satterthwaite degrees of freedom, because three seeds tell little about a variance.
    """
    scores = np.array([run.score for run in runs])
    value = float(scores.mean())
    if len(runs) < 2:
        return AcrossRuns(value, len(runs), None)
    if any(not np.array_equal(run.strata_N, runs[0].strata_N) for run in runs):
        raise ValueError("runs can be put together only over the same items in the same order")
    mean_items = runs[0].with_values(np.mean([run.values_N for run in runs], axis=0))
    of_items = float(replicates(mean_items).var(ddof=1))
    of_runs = float(scores.var(ddof=1)) / len(runs)
    if of_items + of_runs == 0:
        return AcrossRuns(value, len(runs), None)
    freedom = (of_items + of_runs) ** 2 / (
        of_items**2 / max(len(mean_items.values_N) - 1, 1) + of_runs**2 / (len(runs) - 1)
    )
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * float(np.sqrt(of_items + of_runs))
    return AcrossRuns(value, len(runs), Interval(value - half, value + half))


def of_means(parts: Sequence[Floats]) -> Interval | None:
    """Interval of the mean of scores over different items (languages, tasks, competencies).

    parts: the replicates of each score, [R] each, drawn with different seeds (`replicates`), or they would move
    together.
    """
    return interval_of(np.mean(parts, axis=0))
