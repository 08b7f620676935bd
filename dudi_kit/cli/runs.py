"""The stations of a run as commands: plan, train, report, and all of them."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dudi_kit import console
from dudi_kit.cli.app import Panel, Recipe, Settings, command, parse_overrides
from dudi_kit.cli.reference import confirmation, file_of, load_whole

if TYPE_CHECKING:
    from dudi_kit.plan.hardware import Hardware
    from dudi_kit.recipe.load import LoadedRecipe

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder of the run directories, instead of the recipe's output.folder."),
]
Processes = Annotated[
    int, typer.Option("--processes", "-p", min=1, help="Training processes, usually one for each GPU.")
]
PlannedProcesses = Annotated[
    int | None,
    typer.Option("--processes", "-p", min=1, help="Training processes; one for each GPU of --hardware, else 1."),
]
HardwareName = Annotated[
    str | None,
    typer.Option(
        "--hardware",
        metavar="NAME",
        help="Plan for 8xH100-80G, 2x8xH100-80G (2 machines), 1xRTX4090-24G, cpu-24G, …; default: this machine.",
    ),
]
Emit = Annotated[
    Literal["slurm", "torchrun", "accelerate", "deepspeed"] | None,
    typer.Option("--emit", help="Print only how this launcher starts the training, or a whole script for Slurm."),
]
Resume = Annotated[
    bool, typer.Option("--resume", metavar="", help="Go on from the last checkpoint of this very recipe.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Delete the run directory first, if it is there.")
]
Frozen = Annotated[
    bool,
    typer.Option(
        "--frozen", metavar="", help="Refuse anything else than what the recipe's lock says (see `dudi-kit lock`)."
    ),
]
Lock = Annotated[
    Path | None,
    typer.Option("--lock", metavar="FILE", help="Hold the run to this lock, not to the one beside the recipe."),
]
FailOnContamination = Annotated[
    bool,
    typer.Option(
        "--fail-on-contamination", metavar="", help="Stop where the training text holds items of the evaluation."
    ),
]
Profile = Annotated[
    bool, typer.Option("--profile", metavar="", help="Measure where the time of a training step goes, and show it.")
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", metavar="", help="Do not ask before a recipe by URL or hub reference is run.")
]


@command("run")
def run(
    recipe: Recipe,
    settings: Settings = None,
    output: Output = None,
    processes: Processes = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    frozen: Frozen = False,
    lock: Lock = None,
    fail_on_contamination: FailOnContamination = False,
    profile: Profile = False,
    yes: Yes = False,
) -> None:
    """Do all of it: plan, build teachers and cold starts that are missing, train, evaluate, report."""
    confirm = confirmation(recipe, yes=yes)
    loaded = loaded_recipe(recipe, settings)
    held_to = lock_file(recipe, lock, frozen=frozen)
    stations().run(
        loaded,
        output=output,
        processes=processes,
        resume=resume,
        overwrite=overwrite,
        lock=held_to,
        confirm=confirm,
        fail_on_contamination=fail_on_contamination,
        profile=profile,
    )


@command("train")
def train(
    recipe: Recipe,
    settings: Settings = None,
    output: Output = None,
    processes: Processes = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    frozen: Frozen = False,
    lock: Lock = None,
    profile: Profile = False,
    yes: Yes = False,
) -> None:
    """Train the student (and what it needs first), without evaluating it."""
    confirm = confirmation(recipe, yes=yes)
    loaded = loaded_recipe(recipe, settings)
    held_to = lock_file(recipe, lock, frozen=frozen)
    stations().train(
        loaded,
        output=output,
        processes=processes,
        resume=resume,
        overwrite=overwrite,
        lock=held_to,
        confirm=confirm,
        profile=profile,
    )


@command("report")
def report(
    recipe: Recipe, settings: Settings = None, output: Output = None, frozen: Frozen = False, lock: Lock = None
) -> None:
    """Write report.html and print the table, from what training and evaluation left behind."""
    loaded = loaded_recipe(recipe, settings)
    stations().report(loaded, output=output, lock=lock_file(recipe, lock, frozen=frozen))


@command("plan", Panel.LOOK)
def plan(
    recipe: Recipe,
    settings: Settings = None,
    output: Output = None,
    processes: PlannedProcesses = None,
    hardware: HardwareName = None,
    emit: Emit = None,
    frozen: Frozen = False,
    lock: Lock = None,
) -> None:
    """Decide everything that can be decided before weights are loaded, and show it; train nothing.

    Shows tokens by language and memory by part, under each ZeRO stage; ends with 4 where it does not fit --hardware.
    """
    planned_for = parsed_hardware(hardware, processes)
    loaded = loaded_recipe(recipe, settings)
    count = planned_for.processes if planned_for else processes or 1
    held_to = lock_file(recipe, lock, frozen=frozen)
    stations().plan(loaded, output=output, processes=count, hardware=planned_for, emit=emit, lock=held_to)


def parsed_hardware(text: str | None, processes: int | None) -> "Hardware | None":
    """What --hardware names; a name that can't be read is the command line's fault."""
    if text is None:
        return None
    from dudi_kit.plan.hardware import parse_hardware

    try:
        return parse_hardware(text, processes=processes)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--hardware") from error


def loaded_recipe(recipe: str, settings: Sequence[str] | None) -> "LoadedRecipe":
    """The checked recipe; a mistake in it, or in one that it names, is told at once, before torch is imported."""
    loaded = load_whole(recipe, parse_overrides(settings))
    for warning in loaded.warnings:
        console.notice(str(warning))
    return loaded


def lock_file(recipe: str, given: Path | None, *, frozen: bool) -> Path | None:
    """The lock that a run is held to, if it is."""
    from dudi_kit.plan.lock import lock_file as beside

    return given or (beside(file_of(recipe)) if frozen else None)


def stations() -> ModuleType:
    """The stations of a run. Imported late, since torch takes seconds, and with the libraries told to be quiet."""
    from dudi_kit.noise import hush

    hush()
    from dudi_kit.pipeline import stations as module

    return module
