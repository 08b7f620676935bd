"""A YAML file in, a checked recipe out, or all that is wrong with it at once.

Text → tree with places (`yaml_nodes`) → is it for this dudi-kit? (`gate`) → merged with parents and overrides
(`compose`) → paths made absolute (`paths`) → validated by the schema, its errors put into sentences (`sentences`) →
rules that span fields (`checks`).
"""

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from dudi_kit.recipe.checks import check
from dudi_kit.recipe.compose import Overrides, compose
from dudi_kit.recipe.confine import foreign_servers, hush, outside
from dudi_kit.recipe.diagnostics import Finding, InvalidRecipeError, Path, Problem, errors, sort
from dudi_kit.recipe.heal import heal
from dudi_kit.recipe.paths import is_plain_file, make_paths_absolute
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.evaluation import NamedTask
from dudi_kit.recipe.sentences import problems, respelt
from dudi_kit.recipe.task_files import is_file_name, load_task
from dudi_kit.recipe.yaml_nodes import Node


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, and where it came from."""

    recipe: Recipe
    path: FilePath
    """The file, absolute."""

    folder: FilePath
    """The folder that it lies in, absolute."""

    values: dict[str, Any]
    """What was written, parents and overrides merged, paths made absolute, defaults not filled in."""

    files: tuple[FilePath, ...]
    """This file and the parents that it extends, absolute."""

    warnings: tuple[Finding, ...]
    tree: Node
    """The values with their places."""

    root: FilePath | None = None
    """The folder that the recipe, and those that it names, may not leave (see `confine`)."""

    def locate(self, problem: Problem) -> Finding:
        """Put a problem that a later room found at its place in the recipe."""
        return self.tree.locate(problem)


@dataclass(frozen=True)
class Checked:
    """What `check_recipe` found: the recipe, unless one of the findings is an error."""

    loaded: LoadedRecipe | None
    findings: tuple[Finding, ...]
    tree: Node | None = None
    """The merged values with their places, unless a text could not be read."""


def load_recipe(path: FilePath | str, overrides: Overrides = (), root: FilePath | None = None) -> LoadedRecipe:
    """The recipe of a YAML file; raises InvalidRecipeError, a RecipeError, with every finding at once.

    overrides: (dotted path, YAML text), such as ("training.seed", "1"); they are applied last, and null removes a key.
    root: of a recipe that was fetched, the folder that nothing which it names may leave (see `confine`).
    """
    checked = check_recipe(path, overrides, root)
    if checked.loaded is None:
        raise InvalidRecipeError(checked.findings)
    return checked.loaded


def check_recipe(path: FilePath | str, overrides: Overrides = (), root: FilePath | None = None) -> Checked:
    """As `load_recipe`, but the findings are returned, warnings too."""
    path = FilePath(path)
    try:
        whole = compose(path, overrides, root)
    except InvalidRecipeError as invalid:
        return Checked(None, tuple(sort(invalid.findings)))
    strays = [*outside(whole.root, root), *hush(whole.root)] if root is not None else []
    strays += foreign_servers(whole.root)
    make_paths_absolute(whole.root)
    values = whole.root.plain()
    recipe, found = validate(values)
    findings = [
        *whole.findings,
        *strays,
        *(whole.root.locate(problem) for problem in found if not _flawed(whole.root, problem.path)),
        *_in_task_files(recipe),
    ]
    findings = sort(findings)
    if recipe is None or errors(findings):
        return Checked(None, tuple(findings), whole.root)
    loaded = LoadedRecipe(
        recipe=recipe,
        path=path.absolute(),
        folder=path.parent.resolve(),
        values=values,
        files=tuple(whole.files),
        warnings=tuple(findings),
        tree=whole.root,
        root=root,
    )
    return Checked(loaded, tuple(findings), whole.root)


def _in_task_files(recipe: Recipe | None) -> list[Finding]:
    """What is wrong with the task files that a recipe names."""
    named = [task.task for task in recipe.evaluation.tasks.values() if isinstance(task, NamedTask)] if recipe else []
    findings: list[Finding] = []
    for file in dict.fromkeys(filter(is_plain_file, filter(is_file_name, named))):
        try:
            load_task(file)
        except InvalidRecipeError as invalid:
            findings += invalid.findings
    return findings


def validate(values: dict[str, Any]) -> tuple[Recipe | None, list[Problem]]:
    """Plain values against the schema and the rules that span fields, which run even where the schema complains."""
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        found = problems(error, values)
        found += _behind_misspelt_keys(error, values, {problem.path for problem in found})
        healed = heal(values, error)
        if healed is not None:
            found += check(healed.recipe, healed.faulty | {problem.path for problem in found})
        return None, found
    return recipe, check(recipe)


def _behind_misspelt_keys(error: ValidationError, values: dict[str, Any], known: set[Path]) -> list[Problem]:
    """What else is wrong where a key that tells the variant is misspelt, as if it were right."""
    put_right = respelt(error, values)
    if put_right is None:
        return []
    values, renamed = put_right
    try:
        Recipe.model_validate(values)
        return []
    except ValidationError as again:
        more = [problem._replace(path=renamed.get(problem.path, problem.path)) for problem in problems(again, values)]
        return [problem for problem in more if problem.path not in known]


def _flawed(root: Node, path: Path) -> bool:
    return any(node.flawed for node in root.trail(path))
