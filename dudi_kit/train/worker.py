"""One training process: reads a planned run directory, trains, leaves `final/`.

Started by `dudi-kit` (once for each process), by torchrun or by any launcher that sets RANK and WORLD_SIZE, as
`python -m dudi_kit.pipeline.worker outputs/my-run [--resume] [--profile]`.
"""

import contextlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from safetensors import SafetensorError

from dudi_kit.console import notice
from dudi_kit.errors import DudiError, EnvironmentLack, Exit, Interrupted, RunDirectoryError
from dudi_kit.plan.claim import sole_trainer
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import Plan, read_plan
from dudi_kit.recipe.publish import recipe_from_resolved
from dudi_kit.recipe.schema import Recipe
from dudi_kit.train import checkpoints
from dudi_kit.train.agreement import agreement
from dudi_kit.train.assembly import make_loop
from dudi_kit.train.checkpoints import Checkpoint
from dudi_kit.train.clock import NO_CLOCK, StepClock
from dudi_kit.train.cutting import cut_student
from dudi_kit.train.determinism import determinism
from dudi_kit.train.during import Scorer, Watch, told_best
from dudi_kit.train.engine import leave_process_group, start_accelerator
from dudi_kit.train.heap import keep_heap
from dudi_kit.train.heartbeat import Heartbeat
from dudi_kit.train.launch import LOST
from dudi_kit.train.loop import Loop
from dudi_kit.train.processes import LAUNCHER
from dudi_kit.train.progress import training_progress
from dudi_kit.train.saving import Saving, write_student
from dudi_kit.train.state import gathered
from dudi_kit.train.stopping import StopRequests
from dudi_kit.train.surroundings import Surroundings
from dudi_kit.train.trackers import Trackers

LIBRARIES_LATER = 300.0
"""Seconds after which NCCL or gloo would give up, beyond those after which we say who stands still."""


MakeScorer = Callable[[RunDir, Recipe, Plan, Accelerator], Scorer | None]
"""Makes what scores the student while it trains; None where the recipe does not ask for it."""


def train(run: RunDir, make_scorer: MakeScorer, *, resume: bool, profile: bool = False) -> None:
    """Train what the run directory's plan says, from its last checkpoint if asked. profile: measure its steps."""
    if run.complete():  # it was killed, or its machine went, after all was done
        notice(f"trained already: {run.final}")
        return
    plan = read_plan(run)
    recipe = recipe_from_resolved(run.resolved.read_text(encoding="utf-8"))
    patience = 60 * recipe.training.stall_timeout
    longest = timedelta(seconds=patience + LIBRARIES_LATER)
    accelerator = start_accelerator(plan, patience=longest)
    main, rank = accelerator.is_main_process, accelerator.process_index
    alone = sole_trainer(run) if main else contextlib.nullcontext()
    heartbeat = Heartbeat(run.logs, rank, plan.processes, timeout=patience, stalled=partial(_end_stalled, run))
    deterministic = determinism(wanted=recipe.training.deterministic)
    with deterministic, alone, heartbeat, training_progress(plan, show=main) as progress:
        # Each of these may take many minutes where models are large; every process enters all of them.
        heartbeat.beat(0, "looking for a checkpoint")
        saving = Saving(run, recipe, plan, accelerator)
        if not resume:
            saving.require_none()
        found = saving.find() if resume else None
        heartbeat.beat(0, "preparing the student")
        if main:
            cut_student(run, recipe, plan)
        accelerator.wait_for_everyone()
        heartbeat.beat(0, "reading the rows of evaluation")
        watch = make_watch(recipe, plan, make_scorer(run, recipe, plan, accelerator))
        with StopRequests() as stop:
            heartbeat.beat(0, "loading")
            trackers = Trackers(run, recipe, main=main)
            clock = StepClock(accelerator) if profile else NO_CLOCK
            around = Surroundings(saving, progress, heartbeat, stop, agreement(longest), trackers, watch, clock)
            loop = make_loop(run, recipe, plan, accelerator, around)
            heartbeat.beat(0, "loading the checkpoint")
            first = saving.load(found, loop.models) if found else 0
            if watch and found:
                go_on_watching(run, watch, found, accelerator)
            try:
                with trackers.running(first), clock.kept(run, plan):
                    loop.train(first)
            except Interrupted:  # all processes have agreed to stop
                leave_process_group()
                raise
            heartbeat.beat(plan.steps, "saving the final model")
            save_final(loop)
            if main and watch and (told := told_best(run, watch)):
                notice(f"{plan.name}: {told}")
    leave_process_group()


def make_watch(recipe: Recipe, plan: Plan, scorer: Scorer | None) -> Watch | None:
    """What knows when the student is scored, and the best step."""
    during = recipe.evaluation.during_training
    return Watch(scorer, during.every, plan.steps) if during and scorer else None


def go_on_watching(run: RunDir, watch: Watch, found: Checkpoint, accelerator: Accelerator) -> None:
    """Know the best step that a checkpoint knew."""
    if why := watch.go_on(run, checkpoints.facts(found).get("evaluation")):
        accelerator.print(why)
    if accelerator.is_main_process and told_best(run, watch) is None:
        run.best.unlink(missing_ok=True)


def save_final(loop: Loop) -> None:
    """Write `final/` as a transformers folder: it appears whole, and its being there means that training is done."""
    accelerator, run = loop.accelerator, loop.run
    accelerator.wait_for_everyone()
    main, unfinished = accelerator.is_main_process, run.path / ".final.partial"
    if main:
        shutil.rmtree(unfinished, ignore_errors=True)
    try:
        write_final(loop, unfinished)
        if main:
            unfinished.replace(run.final)
    except (OSError, SafetensorError) as error:  # the latter is what a full disk raises in safetensors
        reason = getattr(error, "strerror", None) or error
        raise EnvironmentLack(f"can't write {run.final}: {reason}. Free some space and --resume.") from error
    accelerator.wait_for_everyone()


def write_final(loop: Loop, folder: Path) -> None:
    """The student after the last step, or after the best one where the recipe wants that. Every process calls it."""
    main, run, engine = loop.accelerator.is_main_process, loop.run, loop.models.student
    best = best_before_last(loop, say=notice if main else lambda _: None)
    if best is None:
        write_student(folder, run, engine, gathered(engine, "weights", keep=main), main=main)
    elif main:
        if fault := checkpoints.fault_in(best):
            raise RunDirectoryError(
                f"the best step can't become the final model: {best}: {fault}. Remove that folder and go on with "
                "--resume: the best of the steps after the newest checkpoint is taken."
            )
        checkpoints.copy_model(best, folder)


def best_before_last(loop: Loop, say: Callable[[str], None]) -> Path | None:
    """The checkpoint that is to become the final model; None where that is the student as it is now."""
    during, watch = loop.recipe.evaluation.during_training, loop.around.watch
    if during is None or watch is None or during.final == "last":
        return None
    if watch.best is None:
        say(f"no step has a {watch.scorer.best} of all its languages: the final model is the last step's")
        return None
    return None if watch.best.step == watch.steps else loop.run.checkpoints / f"step-{watch.best.step}"


def main(arguments: list[str], make_scorer: MakeScorer) -> int:
    """Exit code of one process. The reason of a failure goes to stderr and, below the code, to logs/rank-N.log."""
    run = RunDir(Path(arguments[0]))
    keep_heap()
    torch.set_float32_matmul_precision("highest")
    try:
        train(run, make_scorer, resume="--resume" in arguments, profile="--profile" in arguments)
    except DudiError as error:
        return _report(run, str(error), error.exit_code)
    except torch.OutOfMemoryError as error:
        smaller = "Lower training.micro_batch_size, data.max_length or rollouts.max_new_tokens."
        return _report(run, f"out of GPU memory: {error}. {smaller}", Exit.ENVIRONMENT)
    except KeyboardInterrupt:  # who started us says the rest
        return Exit.INTERRUPTED
    except Exception as error:  # whatever else escapes is our bug, and must not look like a fault of the recipe
        text = f"this is a bug of dudi-kit, not yours; please report it:\n{traceback.format_exc()}"
        if _lost_others(error):
            return _report(run, f"{LOST}: {str(error).splitlines()[0]}", Exit.ENVIRONMENT)
        return _report(run, text, Exit.BUG)
    return Exit.OK


def _lost_others(error: Exception) -> bool:
    """Whether a collective failed since another process has gone. gloo raises a bare RuntimeError."""
    words = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _end_stalled(run: RunDir, text: str) -> None:
    """Called beside a main thread that may never return."""
    os._exit(_report(run, text, Exit.ENVIRONMENT))


def _report(run: RunDir, text: str, code: Exit) -> Exit:
    rank = os.environ.get("RANK", "0")
    # That all were stopped is said once, by `dudi-kit` where it started us.
    if code is not Exit.INTERRUPTED or (rank == "0" and LAUNCHER not in os.environ):
        print(text, file=sys.stderr, flush=True)  # noqa: T201 – the one line that the user must see
    with contextlib.suppress(OSError):  # where the disk is full, stderr has to do
        run.logs.mkdir(exist_ok=True)
        (run.logs / f"rank-{rank}.log").write_text(f"{int(code)}\n{text}\n", encoding="utf-8")
    return code
