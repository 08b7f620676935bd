"""The two terminals of the command line: results go to stdout, all that is about the work goes to stderr.

Helpers print plain text, never rich's markup: recipes and rows may hold square brackets, and must not style anything.
Nor may they move the cursor, or command the runner of a workflow.
"""

import re
import unicodedata

from rich.console import Console
from rich.text import Text

out = Console(highlight=False, soft_wrap=True)
"""What was asked for: reports, schemas, findings of `validate`."""

err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress, notices, errors."""

FINDING = re.compile(r"[^\n]*\b(error|warning)\[[a-z-]+\]")
"""The first line of a finding names its severity itself."""


BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

WORKFLOW_COMMAND = re.compile(r"^(\s*):(?=:)|##(?=\[)", re.MULTILINE)
"""What the runner of GitHub Actions takes for a command, in whatever is printed: `::error …`, `##[error]…`."""


def visible(text: str) -> str:
    """The text without characters that would move the terminal's cursor or turn the reading direction."""
    return "".join("�" if _is_control(char) else char for char in text.replace("\t", "→"))


def harmless(text: str) -> str:
    """As `visible`, and nothing in it is a command to a workflow's runner."""
    return WORKFLOW_COMMAND.sub(r"\1 ", visible(text))


def _is_control(char: str) -> bool:
    return char in BIDI_CONTROLS or (char != "\n" and unicodedata.category(char) == "Cc")


def say(text: str, style: str = "") -> None:
    """A line on stdout."""
    out.print(Text(harmless(text), style=style))


def notice(text: str, style: str = "") -> None:
    """A line on stderr, wrapped at words in a terminal; elsewhere it stays one line, for whoever searches a log."""
    err.print(Text(harmless(text), style=style), soft_wrap=not err.is_terminal)


def fail(text: str) -> None:
    """What went wrong, on stderr; `error:` and the text, whose own lines stay as they are."""
    head = "" if FINDING.match(text) else "error: "
    err.print(Text(head, style="bold red") + Text(harmless(text)))
