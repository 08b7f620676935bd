"""A recipe and those that it names as its teacher or its student: everything that is wrong with any of them, in one go.

Each file is looked at once, however many name it. Recipes that need each other in a circle could never be built.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

from dudi_kit.recipe.compose import Overrides
from dudi_kit.recipe.confine import is_inside
from dudi_kit.recipe.diagnostics import Finding, InvalidRecipeError, Path, Problem, errors
from dudi_kit.recipe.load import Checked, LoadedRecipe, check_recipe
from dudi_kit.recipe.paths import is_plain_file

NESTED: tuple[Path, ...] = (("teacher", "recipe"), ("student", "recipe"))
"""Where a recipe names another one."""

DEEPEST = 10
"""Recipes above one another."""


@dataclass(frozen=True)
class Looked:
    """A recipe file and what is wrong with it."""

    file: str
    """Its path or address, as the user wrote it, or would have."""

    checked: Checked
    findings: tuple[Finding, ...]
    """Those of `checked`, and circles that close here."""


def load_whole(path: FilePath | str, overrides: Overrides = (), root: FilePath | None = None) -> LoadedRecipe:
    """As `load_recipe`, but the recipes that it names must be valid too; InvalidRecipeError has all their findings."""
    looked = look([FilePath(path)], overrides, root)
    # Two files may have one parent, and its findings in common.
    findings = list(dict.fromkeys(finding for each in looked for finding in each.findings))
    loaded = looked[0].checked.loaded
    if loaded is None or errors(findings):
        raise InvalidRecipeError(findings)
    return loaded


def look(files: Sequence[FilePath], overrides: Overrides = (), root: FilePath | None = None) -> list[Looked]:
    """Check these recipes, and after each those that it names. The overrides are for the files given, not below.

    root: a folder that none of them may leave (see `confine`).
    """
    seen: dict[tuple[str, bool], None] = {}
    return [each for file in files for each in _look(file, overrides, (), seen, root)]


def _look(
    file: FilePath,
    overrides: Overrides,
    above: tuple[FilePath, ...],
    seen: dict[tuple[str, bool], None],
    root: FilePath | None,
) -> Iterator[Looked]:
    key = (os.path.realpath(file), bool(overrides))
    if key in seen:
        return
    seen[key] = None
    checked, chain = check_recipe(file, overrides, root), (*above, file)
    closing, below = [], []
    for path, named in _named(checked):
        steps = f"the chain is {' → '.join(map(str, (*chain, _as_written(named, file))))}"
        if os.path.realpath(named) in map(os.path.realpath, chain):
            closing.append(Problem(path, "recipe-cycle", "recipes need each other in a circle", steps))
        elif len(chain) == DEEPEST:
            closing.append(Problem(path, "too-deep", f"more than {DEEPEST} recipes deep", steps))
        elif is_plain_file(named) and (
            root is None or is_inside(named, root)
        ):  # that it is missing, `checks.files` has said
            below.append(_as_written(named, file))
    found = [checked.tree.locate(problem) for problem in closing if checked.tree]
    yield Looked(str(file), checked, (*checked.findings, *found))
    for other in below:
        yield from _look(other, (), chain, seen, root)


def _named(checked: Checked) -> Iterator[tuple[Path, str]]:
    for path in NESTED:
        node = checked.tree.at(path) if checked.tree else None
        if node and isinstance(node.value, str) and os.path.isabs(node.value):
            yield path, node.value


def _as_written(named: str, file: FilePath) -> FilePath:
    """Absolute where the file that names it was given so, else from where the command is called."""
    return FilePath(named if file.is_absolute() else os.path.relpath(named))
