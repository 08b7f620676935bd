"""Commands that read recipes and nothing else: they answer at once, offline and without torch."""

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from dudi_kit import console
from dudi_kit.cli.app import Recipe, Settings, command, parse_overrides
from dudi_kit.errors import Exit

if TYPE_CHECKING:
    from dudi_kit.recipe.diagnostics import Finding
    from dudi_kit.recipe.nested import Looked
    from dudi_kit.recipe.show import Comparison, Shown


WIDEST = 48
"""Cells up to which comments of `show` stand in one column; beside a longer line, they come right after it."""


class Format(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


@command("validate")
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recipe files (YAML).", show_default=False)],
    settings: Settings = None,
    form: Annotated[
        Format,
        typer.Option("--format", help="text for people, github annotates workflows, sarif is for code scanning."),
    ] = Format.TEXT,
) -> None:
    """Check recipes without network, weights or data: every mistake at once, with its place and a fix.

    Recipes that they name as teacher or student are checked too. A file that is not there is a finding like any other
    (exit code 1).
    """
    from dudi_kit.recipe.diagnostics import errors
    from dudi_kit.recipe.nested import look

    looked = look(files, parse_overrides(settings))
    if form in (Format.JSON, Format.SARIF):
        _print_json(looked, form)
    else:
        _print_lines(looked, form)
    if any(errors(each.findings) for each in looked):
        raise typer.Exit(Exit.INVALID)


@command("show")
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
    from dudi_kit.recipe import show as views
    from dudi_kit.recipe.diagnostics import errors
    from dudi_kit.recipe.load import check_recipe

    if resolved and diff:
        raise typer.BadParameter("choose one of them", param_hint="--resolved, --diff")
    overrides = parse_overrides(settings)
    if diff:
        _print_comparison(views.changes(recipe, overrides), recipe)
        return
    _print_shown((views.resolved if resolved else views.merged)(recipe, overrides))
    wrong = errors(check_recipe(recipe, overrides).findings)
    if wrong:
        console.notice(
            f"✗ {recipe}: {len(wrong)} error{'s' * (len(wrong) > 1)}, see dudi-kit validate", style="bold red"
        )
        raise typer.Exit(Exit.INVALID)


@command("schema")
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from dudi_kit.recipe.publish import schema_text

    print(schema_text(), end="")  # noqa: T201


def _once(looked: "Sequence[Looked]") -> "Iterator[tuple[Looked, list[Finding]]]":
    """Each file with its findings, but for those that were told before: two files may have one parent."""
    told: set[Finding] = set()
    for each in looked:
        yield each, [finding for finding in each.findings if finding not in told]
        told |= set(each.findings)


def _print_json(looked: "Sequence[Looked]", form: Format) -> None:
    from dudi_kit.recipe.sarif import sarif

    found = [(each.file, finding) for each, findings in _once(looked) for finding in findings]
    content = sarif(found) if form is Format.SARIF else [finding.as_json() for _, finding in found]
    print(json.dumps(content, indent=2, ensure_ascii=False))  # noqa: T201


def _print_lines(looked: "Sequence[Looked]", form: Format) -> None:
    for each, findings in _once(looked):
        for finding in findings:
            if form is Format.GITHUB:
                print(finding.as_github())  # noqa: T201
            else:
                _print_finding(finding)
        _print_verdict(each)


def _print_finding(finding: "Finding") -> None:
    style = "red" if finding.severity == "error" else "yellow"
    for number, line in enumerate(finding.render().split("\n")):
        console.say(line, style="" if number == 1 else style)  # the recipe's own line stays as it is


def _print_verdict(looked: "Looked") -> None:
    from dudi_kit.recipe.diagnostics import errors

    wrong = len(errors(looked.findings))
    warned = len(looked.findings) - wrong
    notes = f" ({warned} warning{'s' * (warned > 1)})" if warned else ""
    if wrong:
        console.notice(f"✗ {looked.file}: {wrong} error{'s' * (wrong > 1)}{notes}", style="bold red")
    else:
        console.notice(f"✓ {looked.file}{notes}", style="bold green")


def _print_shown(lines: "Sequence[Shown]") -> None:
    from dudi_kit.recipe.diagnostics import cells

    widths = [cells(line.text) for line in lines if line.note]
    column = max((width for width in widths if width <= WIDEST), default=0)
    for line in lines:
        note = f"{' ' * max(0, column - cells(line.text))}  # {line.note}" if line.note else ""
        console.out.print(Text(line.text) + Text(note, style="dim"))


def _print_comparison(comparison: "Comparison", recipe: Path) -> None:
    console.say(f"--- {comparison.before}", style="bold red")
    console.say(f"+++ {recipe}", style="bold green")
    styles = {"-": "red", "+": "green", " ": ""}
    for change in comparison.changes:
        console.say(f"{change.sign} {change.text}".rstrip(), style=styles[change.sign])
