"""Commands that look and train nothing: what a recipe depends on, what its models read, what the machine can do."""

from pathlib import Path
from typing import Annotated

import typer

from dudi_kit.cli.app import Recipe, Settings, command
from dudi_kit.cli.runs import loaded_recipe


@command("lock")
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

    (check_lock if check else write_lock)(loaded, file or lock_file(recipe))


def _hush() -> None:
    """Before libraries are imported that take seconds, and talk."""
    from dudi_kit.noise import hush

    hush()
