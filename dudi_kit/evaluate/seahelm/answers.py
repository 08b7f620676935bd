"""Short answers against references: token F1, exact match, and whether the reference stands in the answer."""

import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dudi_kit.evaluate.seahelm.tokens import chinese_words, thai_words

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORDS = {"th": thai_words, "zh": chinese_words}


class AnswerScore(NamedTuple):
    """One answer against its references."""

    f1: float
    """Of its tokens, 0 to 1; the best over the references."""

    exact: bool
    found: bool
    """The first reference stands somewhere in the answer, in any case, full stops at the ends aside."""


def answer_score(answer: str, references: Sequence[str], language: str) -> AnswerScore:
    """Compare after lower-casing, removing ASCII punctuation and collapsing white space.

    Thai and Chinese are cut into words first, and there SEA-HELM looks at the first reference only.
    """
    said, right = answer, list(references)
    if words := _WORDS.get(language):
        said, right = " ".join(words(answer)), [" ".join(words(references[0]))]
    tokens, golds = normal_tokens(said), [normal_tokens(text) for text in right]
    return AnswerScore(
        f1=max(_f1(tokens, gold) for gold in golds),
        exact=tokens in golds,
        found=references[0].lower().strip(".") in answer.lower().strip("."),
    )


def normal_tokens(text: str) -> list[str]:
    """The words that are compared."""
    return text.lower().translate(_WITHOUT_PUNCTUATION).split()


def _f1(said: Sequence[str], gold: Sequence[str]) -> float:
    common = (Counter(said) & Counter(gold)).total()
    return 2 * common / (len(said) + len(gold)) if common else 0.0
