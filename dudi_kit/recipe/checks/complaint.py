"""What a rule yields."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from dudi_kit.recipe.diagnostics import Path, Severity
from dudi_kit.recipe.schema import Recipe


class Complaint(NamedTuple):
    """A broken rule."""

    path: Path
    code: str
    message: str
    hint: str = ""
    needs: tuple[Path, ...] = ()
    """Other paths that the complaint rests on."""

    severity: Severity = "error"
    at_key: bool = False
    """Point at the key, not at its value."""


Rule = Callable[[Recipe], Iterator[Complaint]]

HUB_NAME = r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?"
"""`owner/name`, or a name alone."""
