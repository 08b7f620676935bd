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
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel

from dudi_kit.data.asked import Asked, read_answers
from dudi_kit.data.encode import Encoder
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import DudiError, EnvironmentLack, Exit, RunDirectoryError
from dudi_kit.models.generation import Stops
from dudi_kit.models.loading import DTYPES, freeze, load_model
from dudi_kit.models.reference import frozen_copy
from dudi_kit.models.scratch import architecture_config, build
from dudi_kit.plan.build import Teaching, teaching_of, training_rows
from dudi_kit.plan.claim import sole_trainer
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.rows import TrainingRows, training_examples
from dudi_kit.plan.schema import ModelSource, Plan, read_plan
from dudi_kit.recipe.publish import recipe_from_resolved
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.models import ScratchStudent
from dudi_kit.train.engine import leave_process_group, make_optimizer, prepare, start_accelerator
from dudi_kit.train.loop import Loop
from dudi_kit.train.progress import training_progress
from dudi_kit.train.rollouts import Sampler
from dudi_kit.train.step import Models, Objective, Padding
from dudi_kit.verbalizer.vocabulary.mapping import MappedVocabulary, SharedVocabulary


def train(run: RunDir, *, resume: bool) -> None:
    """Train what the run directory's plan says, from its last checkpoint if asked."""
    plan = read_plan(run)
    recipe = recipe_from_resolved(run.resolved.read_text(encoding="utf-8"))
    accelerator = start_accelerator(plan)
    alone = sole_trainer(run) if accelerator.is_main_process else contextlib.nullcontext()
    with alone, training_progress(plan, show=accelerator.is_main_process) as progress:
        loop = make_loop(run, recipe, plan, accelerator, progress)
        first = loop.resume() if resume else 0
        loop.train(first)
        save_final(loop)
    leave_process_group()


def make_loop(run: RunDir, recipe: Recipe, plan: Plan, accelerator: Accelerator, progress: Any) -> Loop:
    """Load the models, put the student into the engine, and bring all parts of the loop together."""
    student_side = Encoder(load_tokenizer(str(run.tokenizer)), who="student")
    teaching = teaching_of(plan, run, student_side)
    made = planned_rows(run, recipe, plan, student_side, teaching)
    vocabulary = teaching.vocabulary if teaching else None
    objective = Objective(
        recipe.signals,
        padding=Padding(student_side.pad_id, teaching.encoder.pad_id if teaching else student_side.pad_id),
        pieces=vocabulary.size if isinstance(vocabulary, SharedVocabulary) else None,
        mapped=vocabulary if isinstance(vocabulary, MappedVocabulary) else None,
        rollouts=recipe.rollouts,
        context=teaching.context if teaching else None,
        with_labels=bool(plan.labels),
    )
    pieces = vocabulary.sayable_V if vocabulary else np.ones(len(student_side.tokenizer), dtype=bool)
    # The teacher first: while a GGUF is unpacked it takes a multiple of its size, and the student is not there yet.
    device = accelerator.device
    teacher = freeze(_load(plan.teacher, who="teacher", device=device)) if plan.teacher and teaching else None
    student = start_student(recipe, plan, student_side)
    dtype = DTYPES[recipe.training.precision]
    reference = frozen_copy(student, dtype) if "sequence" in objective.weights else None
    engine, optimizer = prepare(accelerator, student, make_optimizer(student, recipe.training))
    return Loop(
        run=run,
        recipe=recipe,
        plan=plan,
        accelerator=accelerator,
        models=Models(engine, teacher, reference.to(device) if reference is not None else None),
        optimizer=optimizer,
        objective=objective,
        sampler=Sampler(
            recipe.rollouts,
            stops=Stops(student_side.stop_ids, student_side.pad_id),
            sayable_V=torch.from_numpy(pieces),
            seed=recipe.training.seed,
        ),
        rows=made.rows,
        mixture=made.mixture,
        progress=progress,
    )


def planned_rows(run: RunDir, recipe: Recipe, plan: Plan, student: Encoder, teaching: Teaching | None) -> TrainingRows:
    """The rows that were planned. The teacher is never asked here: its answers lie in the run directory."""
    ledger, asked = Ledger(), Asked(read_answers([run.asked]))  # the plan has counted and reported already
    examples = training_examples(recipe, ledger, asked)
    made = training_rows(recipe, examples, student, teaching, plan.teacher_room, ledger, asked)
    if asked.missing:
        raise RunDirectoryError(
            f"{run.asked} lacks {len(asked.missing):,} texts that the teacher has to write before training. Call "
            "`dudi-kit verbalize` with the recipe, which asks it, or `dudi-kit run`, which does all of it."
        )
    return made


def start_student(recipe: Recipe, plan: Plan, encoder: Encoder) -> PreTrainedModel:
    """The student before its first step, in fp32."""
    if plan.start is not None:
        model = _load(plan.start, who="student")
    else:
        student = recipe.student
        assert isinstance(student, ScratchStudent), "only a student from scratch has no weights to start from"
        config = architecture_config(
            student.architecture,
            vocabulary_size=len(encoder.tokenizer),
            pad_id=encoder.pad_id,
            end_of_turn_id=encoder.end_of_turn_id,
        )
        model = build(config, seed=recipe.training.seed)
    # Made new: a checkpoint's own one may hold settings that transformers refuses to save once it is changed.
    model.generation_config = GenerationConfig(eos_token_id=list(encoder.stop_ids), pad_token_id=encoder.pad_id)
    return model


def save_final(loop: Loop) -> None:
    """Write `final/` as a transformers folder: it appears whole, and its being there means that training is done."""
    accelerator, run = loop.accelerator, loop.run
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        partial = run.path / ".final.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            accelerator.unwrap_model(loop.models.student).save_pretrained(partial)
            load_tokenizer(str(run.tokenizer)).save_pretrained(partial)
            partial.replace(run.final)
        except (OSError, SafetensorError) as error:  # the latter is what a full disk raises in safetensors
            reason = getattr(error, "strerror", None) or error
            raise EnvironmentLack(f"can't write {run.final}: {reason}. Free some space and --resume.") from error
    accelerator.wait_for_everyone()


def _load(source: ModelSource, *, who: str, device: torch.device | None = None) -> PreTrainedModel:
    return load_model(
        source.path,
        who=f"{who}.model",
        dtype=source.dtype,
        revision=source.revision,
        gguf_file=source.gguf_file,
        quantization=source.quantization,
        device=device,
    )


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
