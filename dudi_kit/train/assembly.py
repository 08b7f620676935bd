"""From a planned run directory to the parts of the loop: rows, models, objective, sampler."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from dudi_kit.data.asked import Asked, read_answers
from dudi_kit.data.encode import Encoder
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import RunDirectoryError
from dudi_kit.models.adapters import Unadapted, adapt
from dudi_kit.models.compiling import compile_layers, require_compiler
from dudi_kit.models.generation import Stops
from dudi_kit.models.head_form import head_form
from dudi_kit.models.loading import DTYPES, freeze, load_model, require_frozen
from dudi_kit.models.reference import frozen_copy
from dudi_kit.models.scratch import architecture_config, build
from dudi_kit.plan.build import teaching_of, training_rows
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.rollouts import longest_sample, serve_command, server_of
from dudi_kit.plan.rows import Row, TrainingRows, training_examples
from dudi_kit.plan.schema import ModelSource, Plan
from dudi_kit.plan.teaching import Teaching
from dudi_kit.recipe.derive import without_samples
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.models import ScratchStudent
from dudi_kit.recipe.schema.signals import Signals
from dudi_kit.train.clock import Clock
from dudi_kit.train.engine import (
    extra_may_be_refused,
    gathered,
    make_optimizer,
    partitioned_at_load,
    prepare,
    shard_frozen,
)
from dudi_kit.train.keeping import Asker, Keeping, keeping_of
from dudi_kit.train.loop import Loop
from dudi_kit.train.rollout_log import RolloutLog, moments_of
from dudi_kit.train.rollouts import OwnSampler, Sampler
from dudi_kit.train.saving import refreshed_reference
from dudi_kit.train.served import VllmServer
from dudi_kit.train.served_sampler import ServedSampler
from dudi_kit.train.step import Models, Objective, Padding
from dudi_kit.train.surroundings import Surroundings
from dudi_kit.verbalizer.vocabulary.mapping import MappedVocabulary, SharedVocabulary


def make_loop(run: RunDir, recipe: Recipe, plan: Plan, accelerator: Accelerator, around: Surroundings) -> Loop:
    """Load the models, put the student into the engine, and bring all parts of the loop together."""
    student_side = Encoder(load_tokenizer(str(run.tokenizer)), who="student")
    teaching = teaching_of(plan, run, student_side)
    made = planned_rows(run, recipe, plan, student_side, teaching)
    padding = Padding(student_side.pad_id, teaching.encoder.pad_id if teaching else student_side.pad_id)
    asker = Asker(padding.teacher, accelerator.device, accelerator.process_index)
    keeping = keeping_of(run, recipe, plan, made, asker)
    objective_of = _objectives(recipe, plan, teaching, padding, keeping, around.clock)
    objective = objective_of(recipe.signals)
    pieces = teaching.vocabulary.sayable_V if teaching else np.ones(len(student_side.tokenizer), dtype=bool)
    sampler = make_sampler(run, recipe, accelerator, made.rows, student_side, torch.from_numpy(pieces))
    device = accelerator.device
    if recipe.training.compile:
        require_compiler()
    # The teacher first: while a GGUF is unpacked it takes a multiple of its size, and the student is not there yet.
    teacher = _asked_teacher(plan, keeping, made.rows, device) if teaching else None
    if teacher is not None:
        _say_if_whole("teacher", teacher, accelerator)
    student = start_student(recipe, plan, student_side, device)
    anchored = "sequence" in objective.weights
    with gathered(student):
        _say_if_whole("student", student, accelerator)  # while its weights are there
        copied = anchored and not anchored_by_itself(recipe)
        reference = frozen_copy(student, DTYPES[recipe.training.precision]).to(device) if copied else None
    if recipe.training.compile:
        for model in (student, reference, teacher if plan.teacher and plan.teacher.placement == "device" else None):
            if model is not None:
                compile_layers(model)
    optimizer = make_optimizer(student, recipe, accelerator.print)
    with extra_may_be_refused(recipe.deepspeed.extra):
        prepared = prepare(accelerator, student, optimizer)
    anchor = Unadapted(prepared.engine.module) if anchored and reference is None else reference
    for who, frozen in (("the teacher", teacher), ("the reference", anchor)):
        if frozen is not None:
            require_frozen(frozen, who)
    return Loop(
        run=run,
        recipe=recipe,
        plan=plan,
        accelerator=accelerator,
        models=Models(prepared.engine, teacher, anchor),
        student=prepared,
        objective=objective,
        between=objective_of(without_samples(recipe.signals)),
        sampler=sampler,
        rollout_log=_rollout_log(run, recipe, plan, student_side),
        rows=made.rows,
        mixture=made.mixture,
        around=around,
        keeping=keeping,
    )


def _objectives(
    recipe: Recipe, plan: Plan, teaching: Teaching | None, padding: Padding, keeping: Keeping | None, clock: Clock
) -> Callable[[Signals], Objective]:
    """The objective of some signals, with all else as the run has it."""
    vocabulary = teaching.vocabulary if teaching else None
    return partial(
        Objective,
        padding=padding,
        pieces=vocabulary.size if isinstance(vocabulary, SharedVocabulary) else None,
        mapped=vocabulary if isinstance(vocabulary, MappedVocabulary) else None,
        rollouts=recipe.rollouts,
        context=teaching.context if teaching else None,
        with_labels=bool(plan.labels),
        packing=recipe.training.packing,
        keeping=keeping,
        clock=clock,
    )


def _asked_teacher(plan: Plan, keeping: Keeping | None, rows: Sequence[Row], device: torch.device) -> nn.Module | None:
    """The teacher, ready for what is kept of it; None where there is none, or all that it would be asked is kept."""
    if plan.teacher is None or (keeping is not None and keeping.needs_no_teacher()):
        return None
    teacher = frozen_teacher(plan, plan.teacher, device)
    if keeping is not None and keeping.teacher is not None:
        keeping.teacher.begin(teacher, rows)
    return teacher


def _say_if_whole(who: str, model: nn.Module, accelerator: Accelerator) -> None:
    """A notice where the model's logits are held whole, however many, since its head can't be computed beside it."""
    if head_form(model) is None:
        accelerator.print(
            f"{who}: its head is computed in a way that is not known, or lies elsewhere, so its logits are held whole: "
            "a micro-batch takes more memory than the plan says"
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


def start_student(recipe: Recipe, plan: Plan, encoder: Encoder, device: torch.device | None = None) -> PreTrainedModel:
    """The student before its first step, in fp32, or packed on the device under its adapter."""
    adapter = recipe.student.adapter
    if plan.start is not None:
        packed = adapter.quantization if adapter else "none"
        start, here = plan.start, None
        if packed != "none":
            start, here = start.model_copy(update={"quantization": packed, "dtype": "bf16"}), device
        # A GGUF is unpacked as a whole; the engine cuts it up later.
        with nullcontext() if plan.start.gguf_file else partitioned_at_load(plan):
            model = _load(start, who="student", device=here)
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
    if adapter is not None:
        assert plan.start is not None, "the recipe's checks refuse an adapter on random weights"
        adapt(model, adapter, seed=recipe.training.seed, base=plan.start.path, revision=plan.start.revision)
    if recipe.training.activation_checkpointing:
        model.activation_checkpointing_enable()
    return model.train()


def anchored_by_itself(recipe: Recipe) -> bool:
    """π_ref is the student without its adapter, which was nothing at the start: no second model is needed."""
    return recipe.student.adapter is not None and refreshed_reference(recipe) is None


def frozen_teacher(plan: Plan, source: ModelSource, device: torch.device) -> nn.Module:
    """On the device, or shared out over the processes."""
    if source.placement != "sharded":
        here: nn.Module = freeze(_load(source, who="teacher", device=device))
        return here
    whole = _load(source.model_copy(update={"placement": "device"}), who="teacher")
    head_form(whole)  # while its weights are whole
    sharded: nn.Module = shard_frozen(freeze(whole), plan)
    return sharded


def _load(source: ModelSource, *, who: str, device: torch.device | None = None) -> PreTrainedModel:
    return load_model(
        source.path,
        who=f"{who}.model",
        dtype=source.dtype,
        revision=source.revision,
        gguf_file=source.gguf_file,
        quantization=source.quantization,
        device=device,
        placement=source.placement,
        device_memory=source.device_memory,
    )
