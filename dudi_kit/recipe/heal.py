"""A recipe with mistakes, made valid by leaving them out, so that rules that span fields can still run on the rest.

The healed recipe is for `checks` alone. Which paths were touched is remembered: what rests on one of them is not said.
"""

import copy
from typing import Any, NamedTuple

from pydantic import ValidationError

from dudi_kit.recipe.anatomy import Trace, keys, trace
from dudi_kit.recipe.diagnostics import Path, nearest
from dudi_kit.recipe.schema import Recipe

MOST_ROUNDS = 8
"""Leaving one mistake out can uncover another, as when a variant becomes clear."""

PLACEHOLDERS: dict[str, Any] = {
    "name": "x",
    "student": {"model": "x"},
    "data": {"train": {"x": {"builtin": "train"}}},
    "train": {"x": {"builtin": "train"}},
    "builtin": "train",
    "every": 1,
}
"""For keys that must be there; any other such key is a text."""


class Healed(NamedTuple):
    """A valid recipe near the one given, and the paths that differ."""

    recipe: Recipe
    faulty: frozenset[Path]


def heal(values: dict[str, Any], error: ValidationError) -> Healed | None:
    """Leave out what is wrong and fill in what is missing; None where that leads nowhere."""
    values = copy.deepcopy(values)
    faulty: set[Path] = set()
    for _ in range(MOST_ROUNDS):
        for details in error.errors(include_url=False):
            place = trace(details["loc"])
            faulty |= {place.path, *_meant(place, details["type"])}
            _mend(values, place, details["type"])
        try:
            return Healed(Recipe.model_validate(values), frozenset(faulty))
        except ValidationError as again:
            error = again
    return None


def _meant(place: Trace, kind: str) -> set[Path]:
    """The key that a misspelt one should have been is in doubt too."""
    near = nearest(str(place.path[-1]), keys(place.owner)) if kind == "extra_forbidden" and place.owner else None
    return {(*place.path[:-1], near)} if near else set()


def _mend(values: Any, place: Trace, kind: str) -> None:
    if not place.path:
        return
    *above, last = place.path
    for part in above:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return
    if kind == "missing" and isinstance(values, dict):
        values[last] = PLACEHOLDERS.get(str(last), "x")
    elif kind == "missing" or isinstance(values, list):
        values.clear()
    elif isinstance(values, dict):
        values.pop(last, None)
