"""Commands that read recipes and nothing else: they answer at once, offline and without torch."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dudi_kit import console
from dudi_kit.cli.app import Settings, command, parse_overrides
from dudi_kit.errors import Exit


class Format(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


@command("validate")
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recipe files (YAML).", show_default=False)],
    settings: Settings = None,
    form: Annotated[
        Format, typer.Option("--format", help="text for people, github for annotations in a workflow.")
    ] = Format.TEXT,
) -> None:
    """Check recipes without network, weights or data: every mistake at once, with its place and a fix.

    A file that is not there is a finding like any other (exit code 1).
    """
    from dudi_kit.recipe.diagnostics import errors
    from dudi_kit.recipe.load import check_recipe

    overrides = parse_overrides(settings)
    results = [(file, check_recipe(file, overrides).findings) for file in files]
    if form is Format.JSON:
        print(json.dumps([f.as_json() for _, findings in results for f in findings], indent=2, ensure_ascii=False))  # noqa: T201
    for file, findings in results if form is not Format.JSON else ():
        _print_findings(file, findings, form)
    if any(errors(findings) for _, findings in results):
        raise typer.Exit(Exit.INVALID)


@command("schema")
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from dudi_kit.recipe.publish import schema_text

    print(schema_text(), end="")  # noqa: T201


def _print_findings(file: Path, findings: Sequence[Any], form: Format) -> None:
    from dudi_kit.recipe.diagnostics import errors

    for finding in findings:
        if form is Format.GITHUB:
            print(finding.as_github())  # noqa: T201
        else:
            _print_finding(finding)
    wrong, warned = len(errors(findings)), len(findings) - len(errors(findings))
    notes = f" ({warned} warning{'s' * (warned > 1)})" if warned else ""
    if wrong:
        console.notice(f"✗ {file}: {wrong} error{'s' * (wrong > 1)}{notes}", style="bold red")
    else:
        console.notice(f"✓ {file}{notes}", style="bold green")


def _print_finding(finding: Any) -> None:
    style = "red" if finding.severity == "error" else "yellow"
    for number, line in enumerate(finding.render().split("\n")):
        console.say(line, style="" if number == 1 else style)  # the recipe's own line stays as it is
