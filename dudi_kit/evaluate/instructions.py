"""Whether an answer does what it was told. Pure functions of the text; its language is another matter.

Nothing here guesses at meaning: a constraint is one that can be counted or looked up. Words are counted at spaces and
sentences at their marks, so neither is asked for in a language that writes without them.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dudi_kit.recipe.languages import LANGUAGES

Setting = Mapping[str, Any]

BULLET = re.compile(r"\s*[-*•]\s+\S")
NUMBERED = re.compile(r"\s*(\d+)[.)]\s*\S")
SENTENCE_END = re.compile(r"[.!?…។៕။]+[\"”’»)]*(?=\s|$)|[។៕။]+")
FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)
QUOTES = "\"'“”‘’«» "


def followed(answer: str, checks: Iterable[Setting], language: str) -> bool:
    """Whether the answer passes every check; an empty one passes none.

    checks: {"kind": …} with the settings of its function, as `requests` makes them.
    """
    text = unicodedata.normalize("NFC", answer).strip()
    return bool(text) and all(KINDS[check["kind"]](text, check, language) for check in checks)


def bullets(text: str, check: Setting, language: str) -> bool:
    """Exactly n lines begin with a bullet."""
    return sum(bool(BULLET.match(line)) for line in text.splitlines()) == int(check["n"])


def numbered(text: str, check: Setting, language: str) -> bool:
    """Lines are numbered from 1 to n, in any script's digits."""
    found = [int(match[1]) for line in text.splitlines() if (match := NUMBERED.match(line))]
    return found == list(range(1, check["n"] + 1))


def paragraphs(text: str, check: Setting, language: str) -> bool:
    """Exactly n blocks with empty lines between them."""
    return len(re.split(r"\n\s*\n", text)) == int(check["n"])


def sentences(text: str, check: Setting, language: str) -> bool:
    """Exactly n sentences, by the marks that end them; what follows the last mark counts as one."""
    parts = SENTENCE_END.split(text)
    return sum(any(map(str.isalnum, part)) for part in parts) == int(check["n"])


def at_most_words(text: str, check: Setting, language: str) -> bool:
    """At most n words."""
    return _words(text) <= int(check["n"])


def at_least_words(text: str, check: Setting, language: str) -> bool:
    """At least n words."""
    return _words(text) >= int(check["n"])


def contains(text: str, check: Setting, language: str) -> bool:
    """The word is there, whatever its capitals; as a word of its own where the script is Latin."""
    word = re.escape(unicodedata.normalize("NFC", check["word"]).casefold())
    pattern = rf"(?<!\w){word}(?!\w)" if LANGUAGES[language].script == "Latin" else word
    return re.search(pattern, text.casefold()) is not None


def avoids(text: str, check: Setting, language: str) -> bool:
    """The word is not there."""
    return not contains(text, check, language)


def is_json(text: str, check: Setting, language: str) -> bool:
    """A JSON object with exactly these keys, each with something in it; a code fence around it is allowed."""
    fenced = FENCE.match(text)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    keys = {unicodedata.normalize("NFC", key) for key in check["keys"]}
    return isinstance(found, dict) and set(found) == keys and all(found.values())


def starts_with(text: str, check: Setting, language: str) -> bool:
    """The text begins with these words; quotes around them are allowed."""
    return text.lstrip(QUOTES).startswith(unicodedata.normalize("NFC", check["text"]))


def ends_with(text: str, check: Setting, language: str) -> bool:
    """The text ends with these words; quotes around them are allowed."""
    return text.rstrip(QUOTES).endswith(unicodedata.normalize("NFC", check["text"]))


def _words(text: str) -> int:
    return sum(any(map(str.isalnum, word)) for word in text.split())


KINDS: dict[str, Callable[[str, Setting, str], bool]] = {
    "bullets": bullets,
    "numbered": numbered,
    "paragraphs": paragraphs,
    "sentences": sentences,
    "at_most_words": at_most_words,
    "at_least_words": at_least_words,
    "contains": contains,
    "avoids": avoids,
    "json": is_json,
    "starts_with": starts_with,
    "ends_with": ends_with,
}
"""Constraint → its function."""
