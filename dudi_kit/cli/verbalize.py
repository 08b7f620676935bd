"""`dudi-kit verbalize`: what the teacher will read."""

from typing import Annotated

import typer

from dudi_kit.cli.app import Recipe, Settings, command
from dudi_kit.cli.reference import confirmation
from dudi_kit.cli.runs import Frozen, Lock, Output, Yes, loaded_recipe, lock_file, stations
from dudi_kit.recipe.languages import LANGUAGES

Count = Annotated[int, typer.Option("--count", "-n", min=0, help="How many rows to show.")]
Language = Annotated[str | None, typer.Option("--language", "-l", help="Show rows of this language only.")]


@command("verbalize")
def verbalize(
    recipe: Recipe,
    settings: Settings = None,
    output: Output = None,
    count: Count = 5,
    language: Language = None,
    frozen: Frozen = False,
    lock: Lock = None,
    yes: Yes = False,
) -> None:
    """Prepare the demonstrations: ask the teacher for what the data lacks, and show what it will read."""
    if language is not None and language not in LANGUAGES:
        raise typer.BadParameter(f"unknown code {language!r}; known: {' '.join(LANGUAGES)}", param_hint="--language")
    confirm = confirmation(recipe, yes=yes)
    loaded = loaded_recipe(recipe, settings)
    stations()  # told to be quiet
    from dudi_kit.pipeline.verbalize import verbalize as prepare_and_show

    held_to = lock_file(recipe, lock, frozen=frozen)
    prepare_and_show(loaded, output=output, count=count, language=language, lock=held_to, confirm=confirm)
