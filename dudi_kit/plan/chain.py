"""Which runs a recipe needs, in order: teachers and cold starts may themselves be recipes.

As in make, a stage that is there already is reused; but by the hash of all it depends on, not by its date. A stage that
is built for another one lies in `<output>/<name>-<hash>`, so that changing a setting never overwrites what another
recipe still uses.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dudi_kit.errors import RecipeError
from dudi_kit.plan.fingerprint import digest, parts
from dudi_kit.plan.layout import RunDir, read_lock
from dudi_kit.recipe.derive import cold_start_recipe
from dudi_kit.recipe.load import load_recipe
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.models import RecipeStudent, TeacherRecipe


@dataclass(frozen=True)
class Stage:
    """One training run, with the stages that must be complete before it."""

    recipe: Recipe
    file: Path
    """The recipe file that it comes from."""

    run: RunDir
    depends_on: dict[str, Any]
    """All that its result depends on (`fingerprint.parts`)."""

    lock: str
    """Hash of `depends_on`."""

    teacher: "Stage | None"
    start: "Stage | None"
    """The stage whose student this one starts from: a cold start, or another recipe's student."""

    def in_order(self) -> Iterator["Stage"]:
        """Every stage below this one, then itself; each once."""
        seen: set[Path] = set()
        for needed in (self.teacher, self.start):
            for stage in needed.in_order() if needed else ():
                # Not the lock: recipes that differ in name alone have the same lock, and a folder each.
                if stage.run.path not in seen:
                    seen.add(stage.run.path)
                    yield stage
        yield self


Pin = Callable[[Recipe], Recipe]
"""Puts locked commits where a recipe names moving revisions."""


def as_written(recipe: Recipe) -> Recipe:
    """Without a lock a recipe names what it names."""
    return recipe


class _Settings(NamedTuple):
    """What is the same for all stages of a chain."""

    output: Path
    pin: Pin
    root: Path | None


def build_chain(recipe: Recipe, file: Path, output: Path, pin: Pin = as_written, root: Path | None = None) -> Stage:
    """The stage of a recipe with all that it needs.

    output: folder in which the run directories lie. root: folder that no recipe of the chain may leave (`confine`).
    """
    return _stage(pin(recipe), file, _Settings(output, pin, root), above=(file.resolve(),), main=True)


def _stage(recipe: Recipe, file: Path, settings: _Settings, *, above: tuple[Path, ...], main: bool) -> Stage:
    teacher = start = None
    if isinstance(recipe.teacher, TeacherRecipe):
        teacher = _other(recipe.teacher.recipe, settings, above)
    if recipe.student.cold_start is not None:
        start = _stage(cold_start_recipe(recipe), file, settings, above=above, main=False)
    elif isinstance(recipe.student, RecipeStudent):
        start = _other(recipe.student.recipe, settings, above)
    dependencies = {role: stage.lock for role, stage in (("teacher", teacher), ("start", start)) if stage}
    depends_on = parts(recipe, dependencies)
    lock = digest(depends_on)
    run = RunDir(settings.output / recipe.name) if main else _shared_run(settings.output, recipe.name, lock)
    return Stage(recipe, file, run, depends_on, lock, teacher, start)


def _shared_run(output: Path, name: str, lock: str) -> RunDir:
    """Where a stage that another one needs lies: the folder that holds this lock already, under whatever name."""
    present = (RunDir(folder) for folder in sorted(output.glob(f"*-{lock[:8]}")))
    return next((run for run in present if read_lock(run) == lock), RunDir(output / f"{name}-{lock[:8]}"))


def _other(path: str, settings: _Settings, above: tuple[Path, ...]) -> Stage:
    file = Path(path).resolve()
    if file in above:
        names = " → ".join(p.name for p in (*above, file))
        raise RecipeError(f"recipes need each other in a circle: {names}. A teacher or a start must end in a model.")
    loaded = load_recipe(file, root=settings.root)
    return _stage(settings.pin(loaded.recipe), file, settings, above=(*above, file), main=False)
