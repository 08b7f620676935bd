"""ROUGE-L of summaries: longest common subsequence of tokens, without stemming. Values lie between 0 and 1."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dudi_kit.evaluate.seahelm.tokens import rouge_tokens

RESAMPLES = 1000
SEED = 4156


class Rouge(NamedTuple):
    """One summary against its reference, or the middle of many."""

    precision: float
    recall: float
    f1: float


def rouge_l(reference: str, summary: str, language: str) -> Rouge:
    """0 where either has no token."""
    gold, said = rouge_tokens(reference, language), rouge_tokens(summary, language)
    common = common_subsequence(gold, said)
    if common == 0:
        return Rouge(0.0, 0.0, 0.0)
    return Rouge(common / len(said), common / len(gold), 2 * common / (len(said) + len(gold)))


def mean(scores: Sequence[Rouge]) -> Rouge:
    """Of each of the three: what the leaderboard reports."""
    return Rouge(*np.mean(np.array(scores), axis=0).tolist())


def bootstrap_median(scores: Sequence[Rouge]) -> Rouge:
    """Median of 1,000 means of resampled rows: what a run of SEA-HELM reports.

    It is close to the mean and not the mean. Drawn from numpy's legacy generator, in SEA-HELM's order.
    """
    scores_N3 = np.array(scores)
    rows_N = np.arange(len(scores_N3))
    draw = np.random.RandomState(SEED).choice
    means_R3 = [scores_N3[draw(rows_N, size=len(rows_N))].mean(axis=0) for _ in range(RESAMPLES)]
    return Rouge(*np.median(means_R3, axis=0).tolist())


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, all of `first` at once in the bits of one number.

    Source: Hyyrö, Bit-parallel LCS-length computation revisited (2004). Zero bits are the tokens matched so far.
    """
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    everything = (1 << len(first)) - 1
    open_bits = everything
    for token in second:
        matching = open_bits & places.get(token, 0)
        open_bits = ((open_bits + matching) | (open_bits - matching)) & everything
    return len(first) - open_bits.bit_count()
