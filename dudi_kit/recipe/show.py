"""A recipe with parents, overrides and defaults filled in and the origin of each value; and what it changes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from dudi_kit.recipe.checks import check
from dudi_kit.recipe.compose import Composition, Overrides, compose
from dudi_kit.recipe.diagnostics import COMMAND_LINE, Path
from dudi_kit.recipe.emit import yaml_lines
from dudi_kit.recipe.load import load_recipe
from dudi_kit.recipe.paths import rebase
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.yaml_nodes import Node

MODELINE = "# yaml-language-server:"


class Shown(NamedTuple):
    """A line of YAML, and what to tell about it in a comment."""

    text: str
    note: str = ""


class Change(NamedTuple):
    """A line of a comparison: `-` is before, `+` is after, a blank says where we are."""

    sign: str
    text: str


class Comparison(NamedTuple):
    """What a recipe says otherwise than another text."""

    before: str
    """A file, or `defaults`."""

    changes: list[Change]


def merged(path: FilePath, overrides: Overrides = (), root: FilePath | None = None) -> list[Shown]:
    """The recipe with its parents and overrides; what is not in its own file has its origin beside it.

    Relative paths are written as they would be in the recipe's own folder. Raises InvalidRecipeError where a text can't
    be read; a recipe that breaks rules can be shown.
    """
    whole = _composed(path, overrides, root=root)
    return [*_head(whole), *_noted(_in_order(whole.root.plain()), lambda path: _origin(whole, path))]


def resolved(path: FilePath, overrides: Overrides = (), root: FilePath | None = None) -> list[Shown]:
    """The recipe with every default that applies to it. Raises InvalidRecipeError unless it is valid."""
    recipe = load_recipe(path, overrides, root).recipe
    whole = _composed(path, overrides, root=root)
    values = _with_written_texts(_applicable(recipe, whole.root), whole.root)
    return [*_head(whole), *_noted(values, lambda path: _origin(whole, path) if whole.root.at(path) else "default")]


def changes(path: FilePath, overrides: Overrides = (), root: FilePath | None = None) -> Comparison:
    """What the recipe says otherwise than its parent; than the defaults, where it extends none.

    Raises InvalidRecipeError where a text can't be read, and without a parent unless the recipe is valid.
    """
    whole = _composed(path, overrides, root=root)
    new = _in_order(whole.root.plain())
    if whole.parent is None:
        defaults = _defaults(load_recipe(path, overrides, root).recipe)
        return Comparison("defaults", list(_changes(defaults, new, leaving=False)))
    old = _composed(whole.parent, (), path.parent, root).root.plain()
    return Comparison(os.path.normpath(whole.parent), list(_changes(old, new, leaving=True)))


def _composed(
    path: FilePath, overrides: Overrides, folder: FilePath | None = None, root: FilePath | None = None
) -> Composition:
    whole = compose(path, overrides, root)
    rebase(whole.root, (folder or path.parent).resolve())
    return whole


# --- lines ------------------------------------------------------------------------------------------------------------


def _head(whole: Composition) -> Iterator[Shown]:
    """The recipe's own line for editors holds for what is shown, too: its paths begin in the same folder."""
    first = whole.source.lines[0]
    if first.startswith(MODELINE):
        yield Shown(first)


def _noted(values: dict[str, Any], note: Callable[[Path], str]) -> Iterator[Shown]:
    for line in yaml_lines(values):
        yield Shown(line.text, note(line.path) if line.is_leaf else "")


def _origin(whole: Composition, path: Path) -> str:
    node = whole.root.at(path)
    source = node.place.source if node else whole.source
    if source == whole.source:
        return ""
    if node is None or source.name == COMMAND_LINE:
        return "--set"
    return f"{os.path.relpath(source.name, os.path.dirname(whole.source.name) or '.')}:{node.place.line}"


def _in_order(values: dict[str, Any]) -> dict[str, Any]:
    """Sections in the order of the schema."""
    order = [*Recipe.model_fields, *values]
    return dict(sorted(values.items(), key=lambda item: order.index(item[0])))


# --- defaults ---------------------------------------------------------------------------------------------------------


def _applicable(recipe: Recipe, written: Node) -> dict[str, Any]:
    """All values, less the defaults that may not be written where they are, as a rule says."""
    values: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True)
    while True:
        refused = [problem.path for problem in check(Recipe.model_validate(values)) if problem.severity == "error"]
        unwritten = [path for path in refused if written.at(path) is None]
        if not unwritten:
            return values
        for *above, key in unwritten:
            mapping: Any = values
            for part in above:
                mapping = mapping.get(part, {})
            mapping.pop(key, None)  # two rules may have refused it


def _with_written_texts(values: Any, node: Node | None) -> Any:
    """The values with paths as they are written in the tree, not as the machine's absolute ones."""
    if isinstance(values, dict):
        return {key: _with_written_texts(value, node.child(key) if node else None) for key, value in values.items()}
    return node.value if node and isinstance(values, str) and isinstance(node.value, str) else values


def _defaults(model: BaseModel) -> dict[str, Any]:
    """The defaults of a model and of those in it, without the keys that have none."""
    found = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        default = (
            None if field.is_required() else to_jsonable_python(field.get_default(), by_alias=True, exclude_none=True)
        )
        if default is None and isinstance(value, BaseModel):
            default = _defaults(value)
        elif isinstance(value, dict):
            default = {key: _defaults(below) for key, below in value.items() if isinstance(below, BaseModel)}
        if default is not None:
            found[field.alias or name] = default
    return found


# --- comparison -------------------------------------------------------------------------------------------------------


def _changes(old: dict[str, Any], new: dict[str, Any], *, leaving: bool, above: Path = ()) -> Iterator[Change]:
    """leaving: a key that the new values do not have has gone; else it holds as before."""
    for key in dict.fromkeys([*new, *old]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            below = list(_changes(before, after, leaving=leaving, above=(*above, key)))
            head = next(yaml_lines({key: {"": None}}, above)).text
            yield from (Change(" ", head), *below) if below else ()
        elif before != after or (key in old) != (key in new):
            if key in old and (key in new or leaving):
                yield from (Change("-", line.text) for line in yaml_lines({key: before}, above))
            if key in new:
                yield from (Change("+", line.text) for line in yaml_lines({key: after}, above))
