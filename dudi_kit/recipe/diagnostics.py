"""Findings: what is wrong with a recipe, where, and how to mend it, in the words of the house.

recipes/thai.yaml:14:5: error[unknown-key] signals.on_policy.temprature: no such key
   14 |     temprature: 2.0
      |     ^^^^^^^^^^ did you mean 'temperature'?
"""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from dudi_kit.console import visible
from dudi_kit.errors import RecipeError

Path = tuple[str | int, ...]
"""Keys and list positions from the recipe's root."""

Severity = Literal["error", "warning"]

COMMAND_LINE = "command line"
"""The name of the text that overrides stand in."""

LONGEST_LINE = 140
"""Characters of a source line that are shown; more is cut around the caret."""


class Problem(NamedTuple):
    """A finding that knows its path in the recipe, but not yet the place in a file."""

    path: Path
    code: str
    message: str
    hint: str = ""
    severity: Severity = "error"
    at_key: bool = False
    """Point at the key, not at its value."""


@dataclass(frozen=True)
class Finding:
    """One mistake: one of these, and no more."""

    file: str
    """As the user wrote it, or `command line`."""

    line: int
    """From 1; 0 where there is none."""

    column: int
    code: str
    path: str
    """Dotted; empty where the mistake is the file's."""

    message: str
    source_line: str = ""
    width: int = 1
    """Characters under which carets stand."""

    hint: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        return self.render()

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def as_github(self) -> str:
        """A workflow command of GitHub Actions, which annotates the line."""
        place = f",line={self.line},col={self.column}" if self.line else ""
        file = _escaped(self.file).replace(":", "%3A").replace(",", "%2C")
        return f"::{self.severity} file={file}{place},title={self.code}::{_escaped(self.sentence)}"

    @property
    def sentence(self) -> str:
        """All that is to say, but for the place."""
        about = f"{self.path}: " if self.path else ""
        return visible(f"{about}{self.message}{f' ({self.hint})' if self.hint else ''}")

    def render(self, longest: int = LONGEST_LINE) -> str:
        """The three lines above; one where there is no place in a file. longest: characters of the source line."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        about = f" {self.path}" if self.path else ""
        head = f"{place}: {self.severity}[{self.code}]{about}: {self.message}"
        if not self.source_line:
            return visible(f"{head} ({self.hint})" if self.hint else head)
        line, column = _window(self.source_line, self.column, longest)
        number = str(self.line or "").rjust(5)
        carets = "^" * max(1, min(self.width, len(line) - column + 1))
        return "\n".join(
            (
                visible(head),
                visible(f"{number} | {line}"),
                visible(f"{' ' * 5} | {' ' * cells(line[: column - 1])}{carets} {self.hint}".rstrip()),
            )
        )


class InvalidRecipeError(RecipeError):
    """The recipe has errors; `findings` has them all, with the warnings."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(render(findings))
        self.findings = tuple(findings)


def render(findings: Iterable[Finding]) -> str:
    """All findings, one under the other."""
    return "\n".join(finding.render() for finding in findings)


def sort(findings: Iterable[Finding]) -> list[Finding]:
    """By place, as an editor would walk through them."""
    return sorted(findings, key=lambda f: (f.file, f.line, f.column, f.path, f.code))


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Those that make a recipe invalid."""
    return [finding for finding in findings if finding.severity == "error"]


def dotted(path: Path) -> str:
    """`data.train.a.languages[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return _shortened(text.removeprefix("."), 200)


def shown(value: object) -> str:
    """A value as a message names it, short whatever it is."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"number {_shortened(repr(value), 30)}"
        case str():
            return f"text {_shortened(repr(value), 60)}"
        case dict():
            return "a mapping"
        case _:
            return "a list"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known spelling that is most likely meant, if one is near."""
    plain = {spelling.lower().replace("-", "_"): spelling for spelling in known}
    close = difflib.get_close_matches(word[:100].lower().replace("-", "_"), plain, n=1, cutoff=0.65)
    return plain[close[0]] if close else None


def listed(words: Iterable[object]) -> str:
    """`a, b or c`."""
    *most, last = map(str, words)
    return f"{', '.join(most)} or {last}" if most else last


def cells(text: str) -> int:
    """Width of a text in a terminal: Han characters take two cells, combining marks none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    marks = sum(unicodedata.category(char) in ("Mn", "Me", "Cf") for char in text)
    return len(text) + wide - marks


def _escaped(text: str) -> str:
    """As the data of a workflow command."""
    return visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _window(line: str, column: int, longest: int) -> tuple[str, int]:
    """The part of a long line around the column, and the column in it."""
    if len(line) <= longest:
        return line, column
    start = max(0, min(column - 1 - longest // 2, len(line) - longest))
    cut = line[start : start + longest]
    return (f"…{cut[1:]}" if start else cut), column - start
