"""`dudi-kit cache`: the teacher's answers, ahead of training."""

from dudi_kit.cli.app import Panel, Recipe, Settings, command
from dudi_kit.cli.reference import confirmation
from dudi_kit.cli.runs import Frozen, Lock, Output, Yes, loaded_recipe, lock_file, stations


@command("cache", Panel.RUNS)
def cache(
    recipe: Recipe,
    settings: Settings = None,
    output: Output = None,
    frozen: Frozen = False,
    lock: Lock = None,
    yes: Yes = False,
) -> None:
    """Ask the teacher ahead of training for all that `teacher.cache` keeps; training then does not load it for this."""
    confirm = confirmation(recipe, yes=yes)
    loaded = loaded_recipe(recipe, settings)
    stations()  # told to be quiet
    from dudi_kit.pipeline.filling import fill_cache

    fill_cache(loaded, output=output, lock=lock_file(recipe, lock, frozen=frozen), confirm=confirm)
