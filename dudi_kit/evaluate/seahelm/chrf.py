"""chrF++ of translations: the substitute where SEA-HELM scores with MetricX-24-XXL, which needs a large GPU.

SEA-HELM has chrF++ in its code, switched off; this is its call. The two scales have nothing in common.
"""

from collections.abc import Sequence

from sacrebleu.metrics import CHRF

WORD_ORDER = 2


def chrf_plus_plus(references: Sequence[str], translations: Sequence[str]) -> float:
    """Of the whole corpus, in percent: not the mean of `sentence_chrf`."""
    return float(CHRF(word_order=WORD_ORDER).corpus_score(translations, [references]).score)


def sentence_chrf(reference: str, translation: str) -> float:
    """Of one translation, in percent."""
    return float(CHRF(word_order=WORD_ORDER).sentence_score(translation, [reference]).score)
