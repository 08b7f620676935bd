"""Commands that read recipes and nothing else: they answer at once, offline and without torch."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dudi_kit import console
from dudi_kit.cli.app import RECIPE_HELP, Panel, Recipe, Settings, command, parse_overrides
from dudi_kit.cli.reference import look_at, opened
from dudi_kit.errors import Exit


class Format(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


@command("validate", Panel.RECIPES)
def validate(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help=RECIPE_HELP, show_default=False)],
    settings: Settings = None,
    form: Annotated[
        Format,
        typer.Option("--format", help="text for people, github annotates workflows, sarif is for code scanning."),
    ] = Format.TEXT,
) -> None:
    """Check recipes without network, weights or data: every mistake at once, with its place and a fix.

    Recipes that they name as teacher or student are checked too. A file that is not there is a finding like any other
    (exit code 1). Only a recipe by URL or hub reference, which has to be fetched first, needs the network.
    """
    from dudi_kit.cli import prints
    from dudi_kit.recipe.diagnostics import errors

    looked = look_at(recipes, parse_overrides(settings))
    if form in (Format.JSON, Format.SARIF):
        prints.as_json(looked, as_sarif=form is Format.SARIF)
    else:
        prints.findings(looked, as_github=form is Format.GITHUB)
    if any(errors(each.findings) for each in looked):
        raise typer.Exit(Exit.INVALID)


@command("show", Panel.RECIPES)
def show(
    recipe: Recipe,
    settings: Settings = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", metavar="", help="Fill in every default; it must be valid.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", metavar="", help="Only what it says otherwise than its parent, or the defaults.")
    ] = False,
) -> None:
    """Print a recipe as one, parents and overrides merged, with the origin of each value as a comment.

    What is printed is a recipe itself: relative paths are those of the recipe's own folder.
    """
    from dudi_kit.cli import prints
    from dudi_kit.recipe import show as views
    from dudi_kit.recipe.diagnostics import errors
    from dudi_kit.recipe.load import check_recipe

    if resolved and diff:
        raise typer.BadParameter("choose one of them", param_hint="--resolved, --diff")
    overrides = parse_overrides(settings)
    source = opened(recipe, overrides)
    if diff:
        prints.comparison(views.changes(source.file, overrides, source.root), recipe)
        return
    prints.shown((views.resolved if resolved else views.merged)(source.file, overrides, source.root))
    wrong = errors(check_recipe(source.file, overrides, source.root).findings)
    if wrong:
        console.notice(f"✗ {recipe}: {prints.counted(wrong)}; dudi-kit validate shows them", style="bold red")
        raise typer.Exit(Exit.INVALID)


@command("explain", Panel.RECIPES)
def explain(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="As in signals.on_policy.divergence.", show_default=False)
    ] = "",
) -> None:
    """Say what a key of the recipe is: type, default, unit, meaning, variants, example. Without PATH: the sections."""
    from dudi_kit.cli import prints
    from dudi_kit.recipe.explain import UnknownPathError
    from dudi_kit.recipe.explain import explain as explained

    try:
        prints.explanation(explained(path))
    except UnknownPathError as unknown:
        raise typer.BadParameter(f"no such key; {unknown.hint}", param_hint=path) from None


@command("list", Panel.RECIPES)
def list_recipes(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Default: recipes, or here.", show_default=False)
    ] = None,
) -> None:
    """List the recipes in a folder, and how far their runs got."""
    from dudi_kit.cli import prints
    from dudi_kit.pipeline import shelf

    folders = [folder] if folder is not None else shelf.default_folders()
    for each in folders:
        if not each.is_dir():
            raise typer.BadParameter("no such folder", param_hint=str(each))
    cards = [card for each in folders for card in shelf.recipes(each)]
    prints.cards(cards)
    prints.runs(shelf.runs(sorted({card.output for card in cards} | {Path("outputs")})))
    if not cards:
        console.notice(f"no recipes in {' or '.join(map(str, folders))}; dudi-kit init writes one")


@command("migrate", Panel.RECIPES)
def migrate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recipe files (YAML).", show_default=False)],
    check: Annotated[
        bool, typer.Option("--check", metavar="", help="Change nothing; exit with 1 if something would be.")
    ] = False,
) -> None:
    """Rewrite recipes in the newest version of the recipe language; comments stay as they are."""
    from dudi_kit.cli import prints
    from dudi_kit.recipe.diagnostics import InvalidRecipeError
    from dudi_kit.recipe.migrate import migrate as migrated

    is_well = True
    for file in files:
        try:
            result = migrated(file)
        except InvalidRecipeError as invalid:
            prints.each(invalid.findings)
            is_well = False
            continue
        prints.migration(file, result, would=check)
        if result.changed and check:
            is_well = False
        elif result.changed:
            file.write_text(result.after, encoding="utf-8", newline="")
    if not is_well:
        raise typer.Exit(Exit.INVALID)


@command("schema", Panel.RECIPES)
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from dudi_kit.recipe.publish import schema_text

    print(schema_text(), end="")  # noqa: T201
