"""Whether a text is written in the script of its language."""

import unicodedata

from dudi_kit.recipe.languages import LANGUAGES

UNICODE_NAMES = {"Han": "CJK"}
"""Scripts whose characters Unicode names otherwise."""


def is_mostly_in(text: str, language: str) -> bool:
    """At least half of the letters are of the language's own script; a text without letters is in every script."""
    script = LANGUAGES[language].script
    name = UNICODE_NAMES.get(script, script.upper())
    letters = [c for c in text if c.isalpha()]
    own = sum(unicodedata.name(c, "").startswith(name) for c in letters)
    return 2 * own >= len(letters)
