"""One training process: reads a planned run directory, trains, leaves `final/`.

Started by `dudi-kit` (once for each process), by torchrun or by any launcher that sets RANK and WORLD_SIZE, as
`python -m dudi_kit.train outputs/my-run [--resume]` (see `__main__`).
"""

import contextlib
import os
import shutil
import sys
import traceback
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import DudiError, EnvironmentLack, Exit
from dudi_kit.plan.claim import sole_trainer
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import read_plan
from dudi_kit.recipe.publish import recipe_from_resolved
from dudi_kit.train.assembly import make_loop
from dudi_kit.train.engine import leave_process_group, start_accelerator
from dudi_kit.train.loop import Loop
from dudi_kit.train.progress import training_progress


def train(run: RunDir, *, resume: bool) -> None:
    """Train what the run directory's plan says, from its last checkpoint if asked."""
    plan = read_plan(run)
    recipe = recipe_from_resolved(run.resolved.read_text(encoding="utf-8"))
    accelerator = start_accelerator(plan)
    alone = sole_trainer(run) if accelerator.is_main_process else contextlib.nullcontext()
    with alone, training_progress(plan, show=accelerator.is_main_process) as progress:
        loop = make_loop(run, recipe, plan, accelerator, progress)
        first = loop.saving.resume(loop.models.reference) if resume else 0
        loop.train(first)
        save_final(loop)
    leave_process_group()


def save_final(loop: Loop) -> None:
    """Write `final/` as a transformers folder: it appears whole, and its being there means that training is done."""
    accelerator, run = loop.accelerator, loop.run
    accelerator.wait_for_everyone()
    with loop.student.whole() as student:
        if accelerator.is_main_process:
            _write_final(run, student)
    accelerator.wait_for_everyone()


def _write_final(run: RunDir, student: PreTrainedModel) -> None:
    partial = run.path / ".final.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        student.save_pretrained(partial)
        load_tokenizer(str(run.tokenizer)).save_pretrained(partial)
        partial.replace(run.final)
    except (OSError, SafetensorError) as error:  # the latter is what a full disk raises in safetensors
        reason = getattr(error, "strerror", None) or error
        raise EnvironmentLack(f"can't write {run.final}: {reason}. Free some space and --resume.") from error


def main(arguments: list[str]) -> int:
    """Exit code of one process. The reason of a failure goes to stderr and, below the code, to logs/rank-N.log."""
    run = RunDir(Path(arguments[0]))
    torch.set_float32_matmul_precision("highest")
    try:
        train(run, resume="--resume" in arguments)
    except DudiError as error:
        return _report(run, str(error), error.exit_code)
    except torch.OutOfMemoryError as error:
        smaller = "Lower training.micro_batch_size, data.max_length or rollouts.max_new_tokens."
        return _report(run, f"out of GPU memory: {error}. {smaller}", Exit.ENVIRONMENT)
    except KeyboardInterrupt:  # who started us says the rest
        return Exit.INTERRUPTED
    except Exception:  # whatever else escapes is our bug, and must not look like a fault of the recipe
        text = f"this is a bug of dudi-kit, not yours; please report it:\n{traceback.format_exc()}"
        return _report(run, text, Exit.BUG)
    return Exit.OK


def _report(run: RunDir, text: str, code: Exit) -> Exit:
    rank = os.environ.get("RANK", "0")
    print(text, file=sys.stderr, flush=True)  # noqa: T201 – the one line that the user must see
    with contextlib.suppress(OSError):  # where the disk is full, stderr has to do
        run.logs.mkdir(exist_ok=True)
        (run.logs / f"rank-{rank}.log").write_text(f"{int(code)}\n{text}\n", encoding="utf-8")
    return code
