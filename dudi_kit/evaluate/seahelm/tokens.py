"""Words of a text, as SEA-HELM's ROUGE-L and token F1 see them, by language.

Thai by pythainlp's `newmm`, Chinese by jieba, all others but Burmese by pyonmttok's `aggressive` mode; Burmese has a
segmenter of rules. The packages are the extra `seahelm`. Without one there is no score: another tokenizer's number
would look like SEA-HELM's and not be it.
"""

import logging
import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from unittest import mock

from dudi_kit.errors import EnvironmentLack

Words = Callable[[str], list[str]]

_ASAT, _VIRAMA = "\u103a", "\u1039"
_DEPENDENT = frozenset(map(chr, [*range(0x102B, 0x1033), *range(0x1036, 0x1039), *range(0x103A, 0x103F)]))
"""Burmese vowel signs, tones and medials, asat among them: they belong to the letter before them."""

_HAN = [
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0x2F800, 0x2FA1F),
]


def rouge_tokens(text: str, language: str) -> list[str]:
    """Tokens that ROUGE-L compares; white space between Thai words is one of them."""
    clean = _clean(text.lower())
    if not clean:
        return []
    if language == "th":
        return thai_words(clean)
    if language == "my":
        return burmese_syllables(clean)
    return _han_apart(" ".join(_onmt()(clean))).split()


def tokenizer_of(language: str) -> str:
    """Name and version of what cuts a summary in this language; raises EnvironmentLack where it is not installed."""
    if language == "my":
        return "Burmese syllables"
    if language == "th":
        return answer_tokenizer_of(language)
    _onmt()
    return f"pyonmttok {version('pyonmttok')} aggressive"


def answer_tokenizer_of(language: str) -> str:
    """Name and version of what cuts a short answer in this language; raises EnvironmentLack likewise."""
    if language == "th":
        _newmm()
        return f"pythainlp {version('pythainlp')} newmm"
    if language == "zh":
        _jieba()
        return f"jieba {version('jieba')}"
    return "white space"


def thai_words(text: str) -> list[str]:
    """Words, and the white space between them, of pythainlp's dictionary."""
    return _newmm()(text)


def chinese_words(text: str) -> list[str]:
    """Words, and the white space between them, of jieba's dictionary."""
    return _jieba()(text)


def burmese_syllables(text: str) -> list[str]:
    """Syllables without the white space between them.

    A letter takes its dependent signs. A short unit with an asat closes the syllable before it, unless that was such a
    unit itself. A virama glues its two neighbours. Source: Ding et al., doi 10.1145/3325885, as SEA-HELM has it.
    """
    ordered = text.replace("\u1037\u103a", "\u103a\u1037")
    units: list[str] = []
    for letter in "".join(ordered.lower().split()):
        if units and letter in _DEPENDENT:
            units[-1] += letter
        else:
            units.append(letter)
    syllables: list[str] = []
    closing = False
    for index, unit in enumerate(units):
        after_closing, closing = closing, index > 0 and _ASAT in unit and len(unit) < 4
        if closing and not after_closing:
            syllables[-1] += unit
        else:
            syllables.append(unit)
    return " ".join(syllables).replace(f" {_VIRAMA} ", _VIRAMA).split()


def _clean(text: str) -> str:
    """Control characters dropped, punctuation to blanks, white space collapsed."""
    kept = (character for character in text if character in "\t\n\r" or not _dropped(character))
    return " ".join("".join(" " if _is_punctuation(character) else character for character in kept).split())


def _dropped(character: str) -> bool:
    return character == "\ufffd" or unicodedata.category(character).startswith("C")


def _is_punctuation(character: str) -> bool:
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P")


def _han_apart(text: str) -> str:
    return "".join(f" {c} " if any(low <= ord(c) <= high for low, high in _HAN) else c for c in text)


@cache
def _onmt() -> Words:
    with _extra("pyonmttok", "ROUGE-L", " under Python 3.12 or 3.11, the last that it is made for"):
        import pyonmttok
    tokenizer = pyonmttok.Tokenizer("aggressive")

    def words(text: str) -> list[str]:
        return list(tokenizer.tokenize(text)[0])

    return words


@cache
def _newmm() -> Words:
    # At its import pythainlp makes a folder for downloads in the user's home. newmm's dictionary is in the package.
    with (
        _extra("pythainlp", "Thai"),
        tempfile.TemporaryDirectory() as nowhere,
        mock.patch.dict(os.environ, PYTHAINLP_DATA_DIR=nowhere),
    ):
        from pythainlp.tokenize import word_tokenize

    def words(text: str) -> list[str]:
        return list(word_tokenize(text, engine="newmm"))

    return words


@cache
def _jieba() -> Words:
    with _extra("jieba", "Chinese"):
        import jieba
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    # It would read and write its cache in the common temporary folder, where anyone could put one that they made.
    with tempfile.TemporaryDirectory() as private:
        tokenizer.tmp_dir = private
        tokenizer.initialize()

    def words(text: str) -> list[str]:
        return list(tokenizer.cut(text))

    return words


@contextmanager
def _extra(package: str, what: str, where: str = "") -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise EnvironmentLack(
            f"no score: {what} as SEA-HELM scores it needs {package}, which is not installed. "
            f"Install it with: pip install 'dudi-kit[seahelm]'{where}"
        ) from error
