"""`dudi-kit cache`: the teacher answers all rows of a recipe ahead of its training, in a process of its own.

What is answered is written every `ROWS_OF_A_SHARD` rows: killed at any moment, it is called again and goes on.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from dudi_kit.console import err, say
from dudi_kit.data.encode import Encoder
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import EnvironmentLack, Exit, Interrupted, RecipeError, WorkerFailed
from dudi_kit.evaluate.progress import rich_track
from dudi_kit.models.cache.kept import stated_error
from dudi_kit.models.loading import best_device
from dudi_kit.pipeline.asking import alone
from dudi_kit.pipeline.stations import prepare, train_teacher
from dudi_kit.pipeline.weights import loaded
from dudi_kit.plan.build import teaching_of
from dudi_kit.plan.caching import heard, open_store
from dudi_kit.plan.layout import RunDir, require_space
from dudi_kit.plan.schema import PlannedStore, read_plan
from dudi_kit.recipe.load import LoadedRecipe
from dudi_kit.recipe.publish import recipe_from_resolved
from dudi_kit.recipe.schema.cache import TeacherCache, TopKCache
from dudi_kit.train.assembly import planned_rows
from dudi_kit.train.keeping import Asker, keeping_of
from dudi_kit.train.launch import wait_for

ROWS_OF_A_SHARD = 512


def fill_cache(
    recipe: LoadedRecipe, *, output: Path | None, lock: Path | None, confirm: Callable[[], None] | None = None
) -> None:
    """Have the teacher answer what is not kept yet, and say where it lies and what it takes.

    confirm: as for `stations.prepare`.
    """
    if recipe.recipe.teacher is None or recipe.recipe.teacher.cache.type == "none":
        raise RecipeError(
            "teacher.cache: this recipe keeps no answers. Set it in the recipe, or call with "
            "--teacher.cache.type=top_k or --teacher.cache.type=hidden, here and in `dudi-kit run`."
        )
    stage = prepare(recipe, output=output, lock=lock, confirm=confirm)
    train_teacher(stage)
    planned = read_plan(stage.run).cache
    assert planned is not None, "a recipe that keeps answers plans them"
    assert planned.teacher is not None, "a recipe that keeps answers plans them"
    require_space(Path(planned.teacher.folder), planned.teacher.bytes, "the teacher's answers")
    try:
        code = wait_for([sys.executable, "-m", "dudi_kit.pipeline", str(stage.run.path)])
    except KeyboardInterrupt:
        raise Interrupted("stopped; what the teacher has answered is kept, the rest is asked next time") from None
    if code:
        reason = f"was killed by signal {-code}" if code < 0 else "failed; the reason stands above"
        error = WorkerFailed(f"the process that asked the teacher {reason}. What it has answered is kept.")
        error.exit_code = Exit(code) if code in set(Exit) else Exit.ENVIRONMENT
        raise error
    say(_told(stage.run, planned.teacher, recipe.recipe.teacher.cache))


def _told(run: RunDir, planned: PlannedStore, cache: TeacherCache) -> str:
    """`kept: 24 rows, 0.2 MB in …; KL from the teacher 0.0812 nats a token`."""
    store = open_store(run, planned)
    text = f"kept: {planned.rows:,} rows, {store.size / 1e6:,.1f} MB in {store.folder}"
    if not isinstance(cache, TopKCache):
        return text
    return f"{text}; KL from the teacher {stated_error(store.answers()):.4f} nats a token"


def fill(run: RunDir) -> None:
    """The process's work."""
    plan, recipe = read_plan(run), recipe_from_resolved(run.resolved.read_text(encoding="utf-8"))
    student = Encoder(load_tokenizer(str(run.tokenizer)), who="student")
    teaching = teaching_of(plan, run, student)
    if plan.teacher is None or teaching is None:
        raise EnvironmentLack(f"{run.path}: its plan asks no teacher. Call `dudi-kit cache` with the recipe.")
    made = planned_rows(run, recipe, plan, student, teaching)
    keeping = keeping_of(run, recipe, plan, made, Asker(teaching.encoder.pad_id, best_device(), 0))
    assert keeping is not None, "a recipe that keeps answers plans them"
    assert keeping.teacher is not None, "a recipe that keeps answers plans them"
    kept = keeping.teacher
    lacking = [made.rows[number] for number in keeping.wanted if not kept.knows(made.rows[number])]
    if not lacking:
        return
    teacher = loaded(plan.teacher, who="teacher.model")
    kept.begin(teacher, made.rows)
    # Rows of like length share a batch, so that little is padded; the longest first, so that a lack of memory shows.
    lacking.sort(key=lambda row: -len(row.teacher_prompts["off_policy"]) - len(heard(row)))
    size = plan.micro_batch_size
    with rich_track(err)("asking the teacher", len(lacking)) as advance:
        for start in range(0, len(lacking), size):
            kept.ask(teacher, lacking[start : start + size])
            advance(len(lacking[start : start + size]))
            if (start + size) % ROWS_OF_A_SHARD < size:
                kept.store.flush()
    kept.store.flush()


def main(arguments: list[str]) -> int:
    """Exit code of the process."""
    return alone(lambda: fill(RunDir(Path(arguments[0]))))
