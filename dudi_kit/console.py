"""The two terminals of the command line: results go to stdout, all that is about the work goes to stderr.

Helpers print plain text, never rich's markup: recipes and rows may hold square brackets, and must not style anything.
"""

import re

from rich.console import Console
from rich.text import Text

out = Console(highlight=False, soft_wrap=True)
"""What was asked for: reports, schemas, findings of `validate`."""

err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress, notices, errors."""

FINDING = re.compile(r"[^\n]*\b(error|warning)\[[a-z-]+\]")
"""The first line of a finding names its severity itself."""


def say(text: str, style: str = "") -> None:
    """A line on stdout."""
    out.print(Text(text, style=style))


def notice(text: str, style: str = "") -> None:
    """A line on stderr, wrapped at words in a terminal; elsewhere it stays one line, for whoever searches a log."""
    err.print(Text(text, style=style), soft_wrap=not err.is_terminal)


def fail(text: str) -> None:
    """What went wrong, on stderr; `error:` and the text, whose own lines stay as they are."""
    head = "" if FINDING.match(text) else "error: "
    err.print(Text(head, style="bold red") + Text(text))
