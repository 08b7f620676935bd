"""Words of a text, in scripts that put spaces between them and in those that don't.

Thai, Lao, Khmer and Burmese are cut by ICU's dictionaries (Unicode Annex 29 names them as the way); Vietnamese is cut
into syllables, because its spaces stand there.
"""

import unicodedata

from icu4py.breakers import WordBreaker


def words(text: str, language: str) -> list[str]:
    """The words of a text, NFC and case-folded; spaces, punctuation and symbols are none."""
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return [word for word in WordBreaker(plain, language) if any(unicodedata.category(c)[0] in "LMN" for c in word)]
