"""YAML 1.2 core scalars, so that `1e-4` is a number and `no` is a word (Norwegian, or an answer), as people expect.

PyYAML's own rules are YAML 1.1: there `1e-4` is a text, `no` is false, `1:30` is ninety and `1_000` is a thousand.
"""

import math
import re

Scalar = str | int | float | bool | None

NULLS = frozenset({"", "~", "null", "Null", "NULL"})
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
WHOLE = re.compile(r"[-+]?[0-9]+")
OCTAL = re.compile(r"0o[0-7]+")
HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

LONGEST_NUMBER = 100
"""Characters; nobody means a longer one, and turning digits into a number takes time that grows with their square."""


def read_scalar(text: str) -> Scalar:
    """What an unquoted text means. Raises ValueError, with a sentence, for a number that is none or far too long."""
    if text in NULLS:
        return None
    if text in BOOLEANS:
        return BOOLEANS[text]
    if NOT_FINITE.fullmatch(text):
        raise ValueError("numbers must be finite")
    return _number(text)


def _number(text: str) -> Scalar:
    kinds = {WHOLE: 10, OCTAL: 8, HEXADECIMAL: 16}
    base = next((base for pattern, base in kinds.items() if pattern.fullmatch(text)), None)
    if base is None and not DECIMAL.fullmatch(text):
        return text
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text):,} characters is too long; put it in quotes if it is a text")
    if base is not None:
        return int(text if base == 10 else text[2:], base)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number
