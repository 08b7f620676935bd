"""Recipes as the command line names them: files, URLs and hub references, through one door."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dudi_kit import console
from dudi_kit.errors import Interrupted

if TYPE_CHECKING:
    from dudi_kit.fetch.collect import Fetched
    from dudi_kit.recipe.compose import Overrides
    from dudi_kit.recipe.diagnostics import Finding
    from dudi_kit.recipe.load import LoadedRecipe
    from dudi_kit.recipe.nested import Looked

SHOWN_FILES = 20


def is_reference(recipe: str) -> bool:
    """Whether a text is an address, of whatever scheme, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|hub:", recipe) is not None


@dataclass(frozen=True)
class Source:
    """A recipe's file on this disk, and what it may read."""

    file: Path
    root: Path | None = None
    """Of a reference, the folder that it can't leave (see `recipe.confine`)."""

    base: str = ""
    """Of a reference, the address of that folder."""

    def told(self, findings: "Iterable[Finding]") -> "tuple[Finding, ...]":
        """The findings with the address in place of the cache's folder, which means nothing to anybody."""
        prefix = f"{self.root}/"
        return tuple(replace(found, file=found.file.replace(prefix, self.base, 1)) for found in findings)


def opened(recipe: str, overrides: "Overrides") -> Source:
    """Where a recipe lies. A reference is fetched and announced first."""
    if not is_reference(recipe):
        return Source(Path(recipe))
    from dudi_kit.fetch.collect import fetch

    with console.err.status(f"fetching {recipe}"):
        fetched = fetch(recipe, overrides)
    _announce(fetched)
    return Source(fetched.file, fetched.root, fetched.base)


def look_at(recipes: Sequence[str], overrides: "Overrides") -> "list[Looked]":
    """As `recipe.nested.look`, for references too."""
    from dudi_kit.recipe.nested import look

    files = [Path(recipe) for recipe in recipes if not is_reference(recipe)]
    looked = look(files, overrides)
    for source in (opened(recipe, overrides) for recipe in recipes if is_reference(recipe)):
        for each in look([source.file], overrides, source.root):
            address = each.file.replace(f"{source.root}/", source.base, 1)
            looked.append(replace(each, file=address, findings=source.told(each.findings)))
    return looked


def load_whole(recipe: str, overrides: "Overrides") -> "LoadedRecipe":
    """As `recipe.nested.load_whole`, for references too."""
    from dudi_kit.recipe import nested
    from dudi_kit.recipe.diagnostics import InvalidRecipeError

    source = opened(recipe, overrides)
    try:
        loaded = nested.load_whole(source.file, overrides, source.root)
    except InvalidRecipeError as invalid:
        raise InvalidRecipeError(source.told(invalid.findings)) from None
    return replace(loaded, warnings=source.told(loaded.warnings))


def file_of(recipe: str) -> Path:
    """The recipe's file. Of a reference, its name in the current folder: there lies what else lies beside a recipe."""
    return Path(recipe.partition("@")[0].rpartition("/")[2]) if is_reference(recipe) else Path(recipe)


def confirmation(recipe: str, *, yes: bool) -> Callable[[], None] | None:
    """What asks before somebody else's recipe is run; None for a file, and where the user said yes beforehand.

    A usage error where there is nobody to ask.
    """
    if not is_reference(recipe) or yes:
        return None
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "a recipe by reference runs after its plan was shown and agreed to, and there is no terminal to ask. Look "
            f"at it with `dudi-kit plan {recipe}`, then add --yes",
            param_hint="RECIPE",
        )
    return _ask


def _ask() -> None:
    if not typer.confirm("Run this recipe?", err=True):
        raise Interrupted("not run; nothing was trained, and no model was asked")


def _announce(fetched: "Fetched") -> None:
    """Where the recipe came from, and the hash of every file."""
    files = list(fetched.sums.items())
    console.notice(f"recipe {fetched.address}", style="bold")
    console.notice(f"  kept in {fetched.root}, sha256 of its files:")
    for path, digest in files[:SHOWN_FILES]:
        console.notice(f"  {digest}  {path}")
    if len(files) > SHOWN_FILES:
        console.notice(f"  and {len(files) - SHOWN_FILES} more")
    if fetched.notice is not None:
        console.notice(f"  warning: {fetched.notice}", style="yellow")
