"""The stations in order: recipe → plan → train → evaluate → report. Each command of the CLI is a function here.

Training runs in processes of its own, started by `train.launch`: the memory of a teacher is free again before its
student trains, and a crash of one stage can't take the others with it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from dudi_kit.console import err, notice, say
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError, ModelError, RecipeError, WorkerFailed
from dudi_kit.pipeline.answers import asked_of, keep_asked, settled
from dudi_kit.pipeline.benchmarks import evaluation_data
from dudi_kit.pipeline.contamination import check_contamination
from dudi_kit.pipeline.during import drawn_from
from dudi_kit.pipeline.legs import leg
from dudi_kit.pipeline.lock import pins_of, require_untouched
from dudi_kit.pipeline.scoring import require_trained, score_models, show_scores
from dudi_kit.pipeline.show_plan import emitted, require_fit, show_plan, warn_of_misfit
from dudi_kit.plan.arithmetic import split_batch
from dudi_kit.plan.build import build_plan
from dudi_kit.plan.chain import Stage, as_written, build_chain
from dudi_kit.plan.claim import Settings, check_folder, claim, exclusive, is_trained, replacing
from dudi_kit.plan.fingerprint import package_versions
from dudi_kit.plan.hardware import Hardware, this_machine
from dudi_kit.plan.launchers import Launcher
from dudi_kit.plan.layout import RunDir, require_space, write_json, write_text
from dudi_kit.plan.models import trained
from dudi_kit.plan.schema import ModelSource, Plan, write_plan
from dudi_kit.recipe.diagnostics import InvalidRecipeError
from dudi_kit.recipe.load import LoadedRecipe
from dudi_kit.recipe.publish import resolved_json
from dudi_kit.report.write import write_card, write_report
from dudi_kit.train.launch import start_training


def run(
    recipe: LoadedRecipe,
    *,
    output: Path | None,
    processes: int,
    resume: bool,
    overwrite: bool,
    lock: Path | None,
    confirm: Callable[[], None] | None = None,
    fail_on_contamination: bool = False,
    profile: bool = False,
) -> None:
    """All of it.

    lock: the file that a frozen run is held to. confirm: called when the plan has been shown and before anything is
    trained; it raises to stop. profile: measure where the time of the steps goes.
    """
    stage = _chain(recipe, output, lock)
    settings = Settings(processes, resume, overwrite, profile)
    _train_chain(stage, settings, confirm, fail_on_contamination=fail_on_contamination)
    _keep(lock, stage)
    score_models(stage, fail_on_contamination=fail_on_contamination)
    _report(stage)


def train(
    recipe: LoadedRecipe,
    *,
    output: Path | None,
    processes: int,
    resume: bool,
    overwrite: bool,
    lock: Path | None,
    confirm: Callable[[], None] | None = None,
    profile: bool = False,
) -> None:
    """The student, and what it needs first. lock, confirm, profile: as for `run`."""
    stage = _chain(recipe, output, lock)
    _train_chain(stage, Settings(processes, resume, overwrite, profile), confirm)
    _keep(lock, stage)
    say(f"trained: {stage.run.final}")


def evaluate(
    recipe: LoadedRecipe, *, output: Path | None, lock: Path | None, fail_on_contamination: bool = False
) -> None:
    """Scores of a trained student, its teacher and its cold start."""
    stage = _chain(recipe, output, lock)
    require_trained(stage)
    score_models(stage, fail_on_contamination=fail_on_contamination)
    show_scores(stage)


def student(recipe: LoadedRecipe, *, output: Path | None, lock: Path | None) -> tuple[ModelSource, RunDir]:
    """The student that a recipe has trained, and its run directory."""
    stage = _chain(recipe, output, lock)
    require_trained(stage)
    return trained(stage.run, "fp32"), stage.run


def report(recipe: LoadedRecipe, *, output: Path | None, lock: Path | None) -> None:
    """The page and the table, from what is there."""
    stage = _chain(recipe, output, lock)
    require_trained(stage)
    _report(stage)


def plan(
    recipe: LoadedRecipe,
    *,
    output: Path | None,
    processes: int,
    hardware: Hardware | None = None,
    emit: Launcher | None = None,
    lock: Path | None = None,
) -> None:
    """Decide what can be decided before weights are loaded, for every stage of the chain; train nothing.

    hardware: what it is planned for; default: this machine. emit: print how this launcher starts it, and nothing else,
    on stdout. EnvironmentLack where the memory needed is more than the hardware that was named has.
    """
    settings = Settings(processes, resume=True, overwrite=False)
    main = _chain(recipe, output, lock)
    missing = [stage for stage in main.in_order() if not is_trained(stage)]
    for stage in missing:
        _check(stage, settings)
    planned = []
    for stage in main.in_order():
        if stage in missing:
            claim(stage, settings)
            planned.append(_plan(stage, processes, hardware))
            show_plan(err, planned[-1], stage.run, main=stage is main)
        else:
            (notice if emit else say)(f"{stage.run.path}: trained already, would be reused")
    _keep(lock, main)
    if hardware:
        require_fit(planned)
    else:
        warn_of_misfit(planned)
    if emit and missing:
        say(emitted(emit, planned, [stage.run for stage in missing], hardware or this_machine(processes), recipe.path))


def prepare(
    recipe: LoadedRecipe, *, output: Path | None, lock: Path | None, confirm: Callable[[], None] | None = None
) -> Stage:
    """Plan every stage and have the teachers write what is to be asked of them; what is trained stays as it is.

    confirm: called when the plans have been shown and before any model is asked; it raises to stop.
    """
    settings = Settings(1, resume=True, overwrite=False)
    stage = _chain(recipe, output, lock)
    ready = []
    for needed in stage.in_order():
        if not is_trained(needed):
            check_folder(needed, settings)
            claim(needed, settings)
            ready.append((needed, _plan(needed, settings.processes)))
    if confirm is not None:
        for needed, planned in ready:
            show_plan(err, planned, needed.run, main=needed is stage)
        confirm()
    was_asked = False
    for needed, first in ready:
        plan_again = partial(_plan, needed, settings.processes)
        planned = plan_again() if was_asked else first  # as in `_train_chain`
        if planned.unasked:
            if needed.teacher is not None and not is_trained(needed.teacher):
                _train_chain(needed.teacher, settings)
            with ExitStack() as held:
                _hold([needed], held)
                settled(needed, planned, plan_again)
            was_asked = True
    return stage


def train_teacher(stage: Stage) -> None:
    """Build the stage's teacher, where it is another recipe's and not there yet."""
    if stage.teacher is not None and not is_trained(stage.teacher):
        _train_chain(stage.teacher, Settings(1, resume=True, overwrite=False))


def _chain(loaded: LoadedRecipe, output: Path | None, lock: Path | None) -> Stage:
    """The stages. lock: everything has to be as this file says, and the hub is read at its commits."""
    folder = output or Path(loaded.recipe.output.folder)
    pin = pins_of(loaded, lock) if lock else as_written
    main = build_chain(loaded.recipe, loaded.path, folder.absolute(), pin, loaded.root)
    for stage in main.in_order() if lock else ():
        if is_trained(stage):
            require_untouched(stage)
    return main


def _check(stage: Stage, settings: Settings) -> None:
    """What can be refused before any data is read."""
    check_folder(stage, settings)
    with _named(stage):
        split_batch(stage.recipe.training, settings.processes)


def _keep(lock: Path | None, stage: Stage) -> None:
    """Leave the lock that a run was held to beside what came of it."""
    if lock is not None:
        write_text(stage.run.frozen, lock.read_text(encoding="utf-8"))


def _train_chain(
    stage: Stage,
    settings: Settings,
    confirm: Callable[[], None] | None = None,
    *,
    fail_on_contamination: bool = False,
) -> None:
    """Build what is missing, in order; the last one is the recipe itself.

    All is planned before anything is trained: a fault of the student's data is told before its teacher takes hours.
    """
    # What a recipe needs is built or finished without asking, as make does; the recipe's own run is the user's.
    unasked = Settings(settings.processes, resume=True, overwrite=False, profile=settings.profile)
    with ExitStack() as held:
        locks = _hold([needed for needed in stage.in_order() if needed is stage or not is_trained(needed)], held)
        choices = []
        for needed in stage.in_order():
            if is_trained(needed) and not (settings.overwrite and needed is stage):
                notice(f"{needed.recipe.name}: trained already, reused from {needed.run.path}")
            else:
                choices.append((needed, settings if needed is stage else unasked))
        if settings.profile and not choices:
            notice("--profile: nothing is trained, so nothing is measured", style="yellow")
        for needed, chosen in choices:
            _check(needed, chosen)
        asked = evaluation_data(stage.recipe, Ledger())  # read once now: a typo there must not cost a training
        if stage.recipe.evaluation.during_training:
            drawn_from(stage.recipe, asked)
        if fail_on_contamination:
            check_contamination(stage, asked, fail=True)
        with ExitStack() as undo:
            ready = []
            for needed, chosen in choices:
                undo.enter_context(replacing(needed, chosen))
                ready.append((needed, claim(needed, chosen), _plan(needed, settings.processes)))
            for needed, _, planned in ready:
                show_plan(err, planned, needed.run, main=needed is stage)
            warn_of_misfit([planned for _, _, planned in ready])
            if confirm is not None:
                confirm()
        space = sum(_bytes_written(needed, planned) for needed, _, planned in ready)
        require_space(stage.run.path, space, "checkpoints and final model")
        was_asked = False
        for needed, resume, planned in ready:
            plan_again = partial(_plan, needed, settings.processes)
            if was_asked:  # a new tokenizer may be made of what a teacher has written
                planned = plan_again()
            if planned.unasked:
                planned, was_asked = settled(needed, planned, plan_again), True
            _train(needed.run, planned, resume=resume, profile=settings.profile)
            locks[needed.run.path].close()


def _hold(stages: Iterable[Stage], held: ExitStack) -> dict[Path, ExitStack]:
    """Keep other commands out of these run directories while they are planned and trained.

    In the order of their paths, so that two commands that need the same ones never wait for each other.
    """
    locks = {}
    for stage in sorted(stages, key=lambda stage: stage.run.path):
        lock = locks[stage.run.path] = held.enter_context(ExitStack())
        wait = partial(notice, f"{stage.recipe.name}: waiting for another command that builds it in {stage.run.path}")
        lock.enter_context(exclusive(stage.run, waiting=wait))
    return locks


def _bytes_written(stage: Stage, planned: Plan) -> int:
    """What training adds at most: the checkpoints that are kept, the one that is being written, the final model."""
    there = sum(file.stat().st_size for file in stage.run.checkpoints.rglob("*") if file.is_file())
    return max(planned.disk.total_bytes - there, 0)


def _train(run: RunDir, planned: Plan, *, resume: bool, profile: bool) -> None:
    notice(f"training {planned.name}", style="bold")
    with leg(run, planned.processes, resume=resume):
        start_training(run, planned.processes, resume=resume, profile=profile)
        if not run.complete():
            raise WorkerFailed(
                f"training ended without an error and left no final model in {run.path}; see its output above."
            )
    write_card(run.path, run.final)


def _plan(stage: Stage, processes: int, hardware: Hardware | None = None) -> Plan:
    """Plan a stage and write down everything that its training will use."""
    run, ledger = stage.run, Ledger()
    # The lock comes first: from here on the directory is recognised as this stage's.
    write_json(run.lock, {"hash": stage.lock, "packages": package_versions(), **stage.depends_on})
    with err.status(f"{stage.recipe.name}: planning"), _named(stage):
        asked = asked_of(stage)
        planned = build_plan(stage, processes=processes, ledger=ledger, asked=asked, hardware=hardware)
    write_text(run.recipe, stage.file.read_text(encoding="utf-8"))
    write_text(run.resolved, resolved_json(stage.recipe))
    write_json(run.ledger, ledger.as_json())
    keep_asked(run, asked)
    write_plan(run, planned)
    return planned


@contextmanager
def _named(stage: Stage) -> Iterator[None]:
    """A fault says whose it is: the recipe of a teacher is another file, which no override of this one reaches."""
    try:
        yield
    except InvalidRecipeError:  # says the file and line itself
        raise
    except (RecipeError, DataError, ModelError) as error:
        raise type(error)(f"{stage.recipe.name} ({stage.file}): {error}") from error


def _report(stage: Stage) -> None:
    """The table, and the page."""
    show_scores(stage)
    page = write_report(stage.run.path)
    write_card(stage.run.path, stage.run.final)
    say(f"report: {page}")
