"""Commands that look and train nothing: what a recipe depends on, what its models read, what the machine can do."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dudi_kit.cli.app import Panel, Recipe, Settings, command
from dudi_kit.cli.reference import file_of
from dudi_kit.cli.runs import Output, loaded_recipe


class Form(StrEnum):
    """How the doctor's findings are printed."""

    TEXT = "text"
    JSON = "json"


@command("lock", Panel.LOOK)
def lock(
    recipe: Recipe,
    settings: Settings = None,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Lock file, instead of RECIPE.lock.json.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", metavar="", help="Write nothing; exit with 1 and list what has changed.")
    ] = False,
) -> None:
    """Write down the commits, files, tokenizers, templates and packages that a recipe depends on, for --frozen."""
    loaded = loaded_recipe(recipe, settings)
    _hush()
    from dudi_kit.pipeline.lock import check_lock, write_lock
    from dudi_kit.plan.lock import lock_file

    (check_lock if check else write_lock)(loaded, file or lock_file(file_of(recipe)))


@command("preview", Panel.LOOK)
def preview(
    recipe: Recipe,
    settings: Settings = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="How many rows.")] = 3,
    language: Annotated[
        str | None, typer.Option("--language", "-l", metavar="CODE", help="Only rows of this language, as in th.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", metavar="NAME", help="Only rows of this dataset of data.train.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Picks the rows.")] = 0,
) -> None:
    """Print what student and teacher really read, token by token: what is learned, what is shown, what is cut."""
    loaded = loaded_recipe(recipe, settings)
    _hush()
    from dudi_kit.pipeline.preview import Wanted, preview

    preview(loaded, Wanted(rows, language, dataset, seed))


@command("failure", Panel.LOOK)
def failure(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="failures/step-N.rank-R.jsonl of a run directory.")],
    everything: Annotated[
        bool, typer.Option("--all", metavar="", help="Show the rows whose loss is a number, too.")
    ] = False,
) -> None:
    """Show the rows of a step whose loss or gradient was no number."""
    from dudi_kit.pipeline.show_failure import show_failure

    show_failure(file, everything=everything)


@command("doctor", Panel.MACHINE)
def doctor(
    output: Output = None,
    form: Annotated[Form, typer.Option("--format", help="text for people, json for programs.")] = Form.TEXT,
) -> None:
    """Look at this machine: what it has, what it lacks, and what that costs. Exits with 4 if dudi-kit can't run."""
    from dudi_kit.pipeline.doctor import doctor

    doctor(output or Path("outputs"), as_json=form is Form.JSON)


def _hush() -> None:
    """Before libraries are imported that take seconds, and talk."""
    from dudi_kit.noise import hush

    hush()
