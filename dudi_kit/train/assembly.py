"""From a planned run directory to the parts of the loop: rows, models, objective, sampler."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from dudi_kit.data.asked import Asked, read_answers
from dudi_kit.data.encode import Encoder
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import RunDirectoryError
from dudi_kit.models.generation import Stops
from dudi_kit.models.loading import DTYPES, freeze, load_model
from dudi_kit.models.reference import frozen_copy
from dudi_kit.models.scratch import architecture_config, build
from dudi_kit.plan.build import Teaching, teaching_of, training_rows
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.rollouts import longest_sample, serve_command, server_of
from dudi_kit.plan.rows import Row, TrainingRows, training_examples
from dudi_kit.plan.schema import ModelSource, Plan
from dudi_kit.recipe.derive import without_samples
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.models import ScratchStudent
from dudi_kit.train.engine import gathered, make_optimizer, partitioned_at_load, prepare
from dudi_kit.train.loop import Loop, Surroundings
from dudi_kit.train.rollout_log import RolloutLog, moments_of
from dudi_kit.train.rollouts import OwnSampler, Sampler
from dudi_kit.train.served import VllmServer
from dudi_kit.train.served_sampler import ServedSampler
from dudi_kit.train.step import Models, Objective, Padding
from dudi_kit.verbalizer.vocabulary.mapping import MappedVocabulary, SharedVocabulary


def make_loop(run: RunDir, recipe: Recipe, plan: Plan, accelerator: Accelerator, around: Surroundings) -> Loop:
    """Load the models, put the student into the engine, and bring all parts of the loop together."""
    student_side = Encoder(load_tokenizer(str(run.tokenizer)), who="student")
    teaching = teaching_of(plan, run, student_side)
    made = planned_rows(run, recipe, plan, student_side, teaching)
    vocabulary = teaching.vocabulary if teaching else None
    objective_of = partial(
        Objective,
        padding=Padding(student_side.pad_id, teaching.encoder.pad_id if teaching else student_side.pad_id),
        pieces=vocabulary.size if isinstance(vocabulary, SharedVocabulary) else None,
        mapped=vocabulary if isinstance(vocabulary, MappedVocabulary) else None,
        rollouts=recipe.rollouts,
        context=teaching.context if teaching else None,
        with_labels=bool(plan.labels),
    )
    objective = objective_of(recipe.signals)
    pieces = vocabulary.sayable_V if vocabulary else np.ones(len(student_side.tokenizer), dtype=bool)
    sampler = make_sampler(run, recipe, accelerator, made.rows, student_side, torch.from_numpy(pieces))
    # The teacher first: while a GGUF is unpacked it takes a multiple of its size, and the student is not there yet.
    device = accelerator.device
    teacher = freeze(_load(plan.teacher, who="teacher", device=device)) if plan.teacher and teaching else None
    student = start_student(recipe, plan, student_side)
    dtype = DTYPES[recipe.training.precision]
    with gathered(student):
        reference = frozen_copy(student, dtype) if "sequence" in objective.weights else None
    prepared = prepare(accelerator, student, make_optimizer(student, recipe, accelerator.print))
    return Loop(
        run=run,
        recipe=recipe,
        plan=plan,
        accelerator=accelerator,
        models=Models(prepared.engine, teacher, reference.to(device) if reference is not None else None),
        student=prepared,
        objective=objective,
        between=objective_of(without_samples(recipe.signals)),
        sampler=sampler,
        rollout_log=_rollout_log(run, recipe, plan, student_side),
        rows=made.rows,
        mixture=made.mixture,
        around=around,
    )


def make_sampler(
    run: RunDir, recipe: Recipe, accelerator: Accelerator, rows: Sequence[Row], student: Encoder, sayable_V: Tensor
) -> Sampler:
    """Who samples. A server is spoken to at once, so that its lack is known before any weight is loaded."""
    engine, seed = server_of(recipe), recipe.training.seed
    stops = Stops(student.stop_ids, student.pad_id)
    if engine is None:
        return OwnSampler(recipe.rollouts, stops=stops, sayable_V=sayable_V, seed=seed)
    longest = longest_sample(recipe, rows)
    server = VllmServer(engine, command=serve_command(recipe, run, engine, longest))
    version = server.check(longest)
    accelerator.print(f"rollouts: sampled by vLLM {version} at {engine.url}")
    return ServedSampler(recipe.rollouts, server, accelerator, run.served, stops=stops, sayable_V=sayable_V, seed=seed)


def _rollout_log(run: RunDir, recipe: Recipe, plan: Plan, student: Encoder) -> RolloutLog:
    rollouts = recipe.rollouts
    moments = moments_of(plan.steps, every=rollouts.every, log_every=recipe.training.log_every)
    return RolloutLog(
        run.rollout_log, student.tokenizer, each=rollouts.log_samples, seed=recipe.training.seed, moments=moments
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
        # A GGUF is unpacked as a whole; the engine cuts it up later.
        with nullcontext() if plan.start.gguf_file else partitioned_at_load(plan):
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
