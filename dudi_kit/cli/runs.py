"""The stations of a run as commands: plan, train, evaluate, report, and all of them."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from dudi_kit import console
from dudi_kit.cli.app import Recipe, Settings, command, parse_overrides

if TYPE_CHECKING:
    from dudi_kit.recipe.load import LoadedRecipe

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder of the run directories, instead of the recipe's output.folder."),
]
Processes = Annotated[
    int, typer.Option("--processes", "-p", min=1, help="Training processes, usually one for each GPU.")
]
Resume = Annotated[
    bool, typer.Option("--resume", metavar="", help="Go on from the last checkpoint of this very recipe.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Delete the run directory first, if it is there.")
]


@command("run")
def run(
    recipe: Recipe,
    settings: Settings = None,
    output: Output = None,
    processes: Processes = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Do all of it: plan, build teachers and cold starts that are missing, train, evaluate, report."""
    loaded = loaded_recipe(recipe, settings)
    stations().run(loaded, output=output, processes=processes, resume=resume, overwrite=overwrite)


@command("train")
def train(
    recipe: Recipe,
    settings: Settings = None,
    output: Output = None,
    processes: Processes = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train the student (and what it needs first), without evaluating it."""
    loaded = loaded_recipe(recipe, settings)
    stations().train(loaded, output=output, processes=processes, resume=resume, overwrite=overwrite)


@command("evaluate")
def evaluate(recipe: Recipe, settings: Settings = None, output: Output = None) -> None:
    """Score a trained student beside its teacher and its cold start: bits per byte, and the recipe's tasks."""
    loaded = loaded_recipe(recipe, settings)
    stations().evaluate(loaded, output=output)


@command("report")
def report(recipe: Recipe, settings: Settings = None, output: Output = None) -> None:
    """Write report.html and print the table, from what training and evaluation left behind."""
    loaded = loaded_recipe(recipe, settings)
    stations().report(loaded, output=output)


@command("plan")
def plan(recipe: Recipe, settings: Settings = None, output: Output = None, processes: Processes = 1) -> None:
    """Decide everything that can be decided before weights are loaded, and show it; train nothing."""
    loaded = loaded_recipe(recipe, settings)
    stations().plan(loaded, output=output, processes=processes)


def loaded_recipe(recipe: Path, settings: Sequence[str] | None) -> "LoadedRecipe":
    """The checked recipe; a mistake in it is told at once, before torch is imported."""
    from dudi_kit.recipe.load import load_recipe

    loaded = load_recipe(recipe, parse_overrides(settings))
    for warning in loaded.warnings:
        console.notice(str(warning))
    return loaded


def stations() -> ModuleType:
    """The stations of a run. Imported late, since torch takes seconds, and with the libraries told to be quiet."""
    from dudi_kit.noise import hush

    hush()
    from dudi_kit.pipeline import stations as module

    return module
