"""Answers × references → a score: one explicit function for each metric, in one table.

Whole answers are compared after `normalise`; chrF looks at the texts as they are. All values are in percent.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence

import numpy as np
import sacrebleu
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import f1_score

from dudi_kit.evaluate.scores import MetricScore
from dudi_kit.recipe.schema.evaluation import Metric

SENTENCE_MARKS = ".,;:!?…。．，、；：！？｡၊။។៕।॥"  # of the Latin, Han, Burmese, Khmer and Indic scripts
RESAMPLES = 1000
SEED = 0
CONFIDENCE = 0.95


def normalise(text: str) -> str:
    """The form in which whole answers are compared.

    In this order: NFC; case folded; each run of white space to one space; white space and sentence marks cut from the
    end, white space from the start. A text of nothing but marks stays as it is. Brackets, quotes and % are kept.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    spaced = re.sub(r"\s+", " ", folded).strip()
    return spaced.rstrip(SENTENCE_MARKS + " ") or spaced


def is_null(answer: str, normal_labels: Collection[str]) -> bool:
    """Whether the answer is none of the labels, which may be in any language and were normalised before."""
    return normalise(answer) not in normal_labels


def is_correct(answer: str, reference: str) -> bool:
    """Whether answer and reference agree after normalisation."""
    return normalise(answer) == normalise(reference)


def accuracy(answers: Sequence[str], references: Sequence[str]) -> MetricScore:
    """Share of right answers, with Wilson's interval."""
    right = sum(map(is_correct, answers, references))
    interval = binomtest(right, len(references)).proportion_ci(CONFIDENCE, method="wilson")
    return MetricScore(100 * right / len(references), (100 * float(interval.low), 100 * float(interval.high)))


def macro_f1(answers: Sequence[str], references: Sequence[str]) -> MetricScore:
    """F1 averaged over the labels that occur among these references; percentile bootstrap over rows.

    An answer that is none of these labels (a null answer, or a label of another language) lowers the recall of the
    right one and touches no precision, so it is wrong and nothing else.
    """
    gold = [normalise(text) for text in references]
    said = [normalise(text) for text in answers]
    labels = sorted(set(gold))
    value = f1_score(gold, said, labels=labels, average="macro", zero_division=0)
    return MetricScore(100 * float(value), _f1_interval(gold, said, labels))


def chrf(answers: Sequence[str], references: Sequence[str]) -> MetricScore:
    """sacrebleu's corpus chrF (characters up to 6-grams, β = 2, white space ignored), on NFC texts; no interval."""
    score = sacrebleu.corpus_chrf([_nfc(text) for text in answers], [[_nfc(text) for text in references]])
    return MetricScore(score.score)


METRICS: dict[Metric, Callable[[Sequence[str], Sequence[str]], MetricScore]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "chrf": chrf,
}
"""Metric of the recipe → function of (answers, references), both in the order of the rows, at least one row."""

EXACT_METRICS: frozenset[Metric] = frozenset({"accuracy", "macro_f1"})
"""Metrics for which an answer is right or wrong."""


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _f1_interval(gold: list[str], said: list[str], labels: list[str]) -> tuple[float, float] | None:
    if len(gold) < 2:
        return None
    number = {label: i for i, label in enumerate(labels)}
    gold_N = np.array([number[label] for label in gold])
    said_N = np.array([number.get(label, -1) for label in said])
    if len(labels) == 1 and len(set(said_N.tolist())) == 1:
        return None  # every resample is the same

    def statistic(rows: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        return _macro_f1_of(gold_N[rows], said_N[rows], len(labels))

    rows = np.arange(len(gold))
    result = bootstrap(
        (rows,),
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, 1_000_000 // len(gold)),  # resamples at a time: memory stays small
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=SEED,
    )
    return 100 * float(result.confidence_interval.low), 100 * float(result.confidence_interval.high)


def _macro_f1_of(gold_RN: NDArray[np.int64], said_RN: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """Macro F1 of R resamples of N rows each; a label that no row of a resample has is left out of its mean."""
    f1 = np.full((labels, *gold_RN.shape[:-1]), np.nan)
    for label in range(labels):
        is_gold, is_said = gold_RN == label, said_RN == label
        hits, golds, saids = (is_gold & is_said).sum(-1), is_gold.sum(-1), is_said.sum(-1)
        f1[label] = np.where(golds > 0, 2 * hits / np.maximum(golds + saids, 1), np.nan)
    mean: NDArray[np.float64] = np.nanmean(f1, axis=0)
    return mean
