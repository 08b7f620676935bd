"""What a rule yields."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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


def written(recipe: Recipe, *paths: Path) -> Path:
    """The first of the paths that the recipe itself writes: to show a mistake where it was made, not at a default."""
    return next((path for path in paths if _is_written(recipe, path)), paths[0])


def _is_written(section: Any, path: Path) -> bool:
    for key in path:
        if key not in section.model_fields_set:
            return False
        section = getattr(section, str(key))
    return True


MOVING = frozenset({"main", "master", "HEAD"})
"""Revisions that are branches."""
