"""The languages that dudi-kit knows, by the code that recipes, data and reports use.

ISO 639-1 where it exists. Filipino is `tl` here, as in SEA-HELM; `fil` is pointed to it.
"""

from typing import NamedTuple


class Language(NamedTuple):
    """One language: its English name, and the Unicode script that its native writing uses."""

    name: str
    script: str


LANGUAGES: dict[str, Language] = {
    "en": Language("English", "Latin"),
    "id": Language("Indonesian", "Latin"),
    "jv": Language("Javanese", "Latin"),
    "km": Language("Khmer", "Khmer"),
    "lo": Language("Lao", "Lao"),
    "ms": Language("Malay", "Latin"),
    "my": Language("Burmese", "Myanmar"),
    "su": Language("Sundanese", "Latin"),
    "ta": Language("Tamil", "Tamil"),
    "th": Language("Thai", "Thai"),
    "tl": Language("Filipino", "Latin"),
    "vi": Language("Vietnamese", "Latin"),
    "zh": Language("Chinese", "Han"),
}

ALIASES: dict[str, str] = {
    "fil": "tl",
    "tgl": "tl",
    "ind": "id",
    "msa": "ms",
    "zsm": "ms",
    "tha": "th",
    "vie": "vi",
    "tam": "ta",
    "mya": "my",
    "bur": "my",
    "khm": "km",
    "lao": "lo",
    "jav": "jv",
    "sun": "su",
    "eng": "en",
    "zho": "zh",
    "cmn": "zh",
}
"""Other spellings that people try; used for suggestions only, never accepted silently."""
