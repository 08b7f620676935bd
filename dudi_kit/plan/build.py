"""From a stage of the chain to a plan: tokenizer, rows, vocabulary mapping, batches, engine, disk.

Nothing here loads a weight. Stages are planned in the order of the chain, since a student may take its tokenizer from a
teacher that is yet to be trained.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from dudi_kit.data.asked import Ask, Asked, nobody
from dudi_kit.data.chat import resolve_template
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import load_tokenizer, train_tokenizer
from dudi_kit.models.scratch import architecture_config, count_parameters
from dudi_kit.models.targets import count_trained
from dudi_kit.plan.arithmetic import arithmetic
from dudi_kit.plan.budget import planned_disk, planned_memory
from dudi_kit.plan.caching import planned_cache
from dudi_kit.plan.chain import Stage
from dudi_kit.plan.contexts import check_contexts
from dudi_kit.plan.engine import ds_config, launch_command
from dudi_kit.plan.hardware import Hardware, this_machine
from dudi_kit.plan.launchers import launchers
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.models import config_of, context_of, encoder_of, given, held_as, tokenizer_of, trained
from dudi_kit.plan.notices import notices_of, paths_outside, scoring_notices
from dudi_kit.plan.packing import check_packing
from dudi_kit.plan.pruning import decide_pruning, pruned_config, read_pruning
from dudi_kit.plan.rollouts import lay_out_server, rollout_notices
from dudi_kit.plan.rows import RowMaker, TeacherSide, TrainingRows, mixed, texts, training_examples
from dudi_kit.plan.schema import ModelSource, Plan, PlannedLabels, PlannedPruning
from dudi_kit.plan.sizes import job_of, shares_of
from dudi_kit.plan.teaching import Teaching
from dudi_kit.plan.vocabulary import coverage_notices, join, planned, rejoin, speaker
from dudi_kit.recipe.derive import reading_terms
from dudi_kit.recipe.publish import resolved_json
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.models import GivenTokenizer, PretrainedStudent, PrunedStudent, ScratchStudent, TeacherModel
from dudi_kit.verbalizer.demonstration import Demonstrator
from dudi_kit.verbalizer.label_words.files import label_sets
from dudi_kit.verbalizer.label_words.words import LabelWords, check_declared
from dudi_kit.verbalizer.vocabulary.coverage import coverage_of

UNLIMITED = 10**9
"""Tokens, where a model does not say how many it reads."""


class Sides(NamedTuple):
    """Both models of a stage as far as they are known before weights are, and the rows that they will read."""

    examples: list[Example]
    student: Encoder
    config: PreTrainedConfig
    """Of the student."""

    teaching: Teaching | None
    room: int | None
    """Longest teacher prompt in tokens; None where nothing limits it."""


def read_sides(stage: Stage, ledger: Ledger, ask: Ask = nobody) -> Sides:
    """Read the rows and decide on tokenizers and vocabulary; save the student's tokenizer in the run directory.

    The stages that this one needs must have been here before: their tokenizers may be this one's. ask: finds what the
    teacher was asked for.
    """
    examples = training_examples(stage.recipe, ledger, ask)
    student = Encoder(_student_tokenizer(stage, examples, ledger), who="student")
    student.tokenizer.save_pretrained(stage.run.tokenizer)
    config = _student_config(stage)
    teaching = _teaching(stage, student, config, examples)
    return Sides(examples, student, config, teaching, teacher_room(stage.recipe, teaching))


def build_plan(
    stage: Stage, *, processes: int, ledger: Ledger, asked: Asked | None = None, hardware: Hardware | None = None
) -> Plan:
    """Decide all that can be decided before a weight is loaded, and save the student's tokenizer in the run directory.

    The stages that this one needs must have been planned before. asked: what the teacher has answered; remembers what
    it is yet to be asked for. Counts what is left out in the ledger. hardware: what the memory is held against, with as
    many processes; default: this machine.
    """
    recipe, asked, hardware = stage.recipe, asked or Asked(), hardware or this_machine(processes)
    examples, student, config, teaching, room = read_sides(stage, ledger, asked)
    check_packing(recipe, {"student": config, "teacher": teaching.config if teaching else None})
    maker = row_maker(recipe, examples, student, teaching, room, ledger, asked)
    labels = maker.teacher.labels if maker.teacher else None
    made = mixed(recipe, maker.rows(examples), ledger)
    coverage = coverage_of((row.language, row.response, row.reading) for row in made.rows)
    contexts = {"student": context_of(config), "teacher": teaching.context if teaching else None}
    check_contexts(recipe, examples, made.rows, contexts)
    batches = arithmetic(recipe.training, rows_per_epoch=made.mixture.rows_per_epoch, processes=processes)
    parameters = count_parameters(config)
    lay_out_server(recipe, stage.run, student, config)
    engine = ds_config(recipe, batches, parameters)
    adapter = recipe.student.adapter
    trained_parameters = count_trained(config, adapter) if adapter else None
    cache = planned_cache(stage, student, teaching, made, batches.steps * batches.batch_size)
    asked_teaching = None if cache and cache.needs_no_teacher else teaching
    return Plan(
        name=recipe.name,
        lock=stage.lock,
        teacher=_teacher_source(stage),
        start=_start(stage),
        vocabulary=(
            planned(teaching.vocabulary, teaching.wish, coverage, student_rows=config.vocab_size) if teaching else None
        ),
        labels=[PlannedLabels(**asdict(declared)) for declared in labels.declared] if labels else [],
        pruning=_pruning(stage),
        languages=shares_of(made),
        teacher_room=room,
        **batches._asdict(),
        parameters=parameters,
        trained_parameters=trained_parameters,
        teacher_parameters=count_parameters(teaching.config) if teaching else None,
        memory=planned_memory(job_of(recipe, config, asked_teaching, made, batches, hardware, engine), hardware),
        cache=cache,
        disk=planned_disk(recipe, parameters, trained_parameters, cache),
        deepspeed=engine,
        launch=["python", *launch_command(processes, str(stage.run.path), resume=False)],
        launchers=launchers(str(stage.run.path), hardware),
        outside=sorted(set(paths_outside(json.loads(resolved_json(recipe)), stage.file.parent.resolve()))),
        unasked=len(asked.missing),
        notices=[
            *notices_of(recipe, teaching.vocabulary if teaching else None, ledger),
            *scoring_notices(recipe, batches.steps),
            *rollout_notices(recipe, stage.run, made.rows),
            *(coverage_notices(recipe.verbalizer.vocabulary, coverage, ledger) if teaching else []),
            *asked.lines(),
            *(labels.lines() if labels else ()),
        ],
    )


def training_rows(
    recipe: Recipe,
    examples: list[Example],
    student: Encoder,
    teaching: Teaching | None,
    room: int | None,
    ledger: Ledger,
    ask: Ask = nobody,
) -> TrainingRows:
    """The token ids of every training row, and their order. ask: finds what the teacher was asked for."""
    maker = row_maker(recipe, examples, student, teaching, room, ledger, ask)
    return mixed(recipe, maker.rows(examples), ledger)


def row_maker(
    recipe: Recipe,
    examples: list[Example],
    student: Encoder,
    teaching: Teaching | None,
    room: int | None,
    ledger: Ledger,
    ask: Ask = nobody,
) -> RowMaker:
    """What makes the token ids of a row. examples: all of them, since demonstrations may come from other rows."""
    side = None
    if teaching is not None:
        side = TeacherSide(
            teaching.encoder,
            Demonstrator(recipe.verbalizer.demonstration, examples, ledger, ask),
            reading_terms(recipe),
            room=UNLIMITED if room is None else room,
            context=teaching.context or UNLIMITED,
            vocabulary=teaching.vocabulary,
            ledger=ledger,
            labels=label_words(recipe, examples, student, teaching, ledger),
        )
    return RowMaker(recipe.data, student, ledger, side)


def sides_of(stage: Stage, examples: Sequence[Example]) -> tuple[Encoder, Teaching | None]:
    """How student and teacher of a planned stage write, whether they are trained yet or not. examples: of the plan."""
    student = Encoder(load_tokenizer(str(stage.run.tokenizer)), who="student")
    return student, _teaching(stage, student, _student_config(stage), examples)


def label_words(
    recipe: Recipe, examples: Sequence[Example], student: Encoder, teaching: Teaching, ledger: Ledger
) -> LabelWords | None:
    """The label words of the training rows; None where no row declares its set."""
    fixed = [(name, rows.labels) for name, rows in recipe.data.train.items() if isinstance(rows.labels, str)]
    if all(example.labels is None for example in examples):
        return None
    sets = label_sets(recipe.verbalizer.vocabulary.label_words)
    check_declared(fixed, sets)
    return LabelWords(sets, teaching.encoder, student, examples, ledger)


def teaching_of(plan: Plan, run: RunDir, student: Encoder) -> Teaching | None:
    """The teacher's side of a written plan, for the training processes."""
    if plan.teacher is None or plan.vocabulary is None:
        return None
    encoder, config = encoder_of(plan.teacher, who="teacher"), config_of(plan.teacher, who="teacher")
    speakers = (
        speaker("student", student, plan.vocabulary.student_rows),
        speaker(plan.teacher.path, encoder, config.vocab_size),
    )
    vocabulary, wish = rejoin(plan.vocabulary, *speakers, run)
    return Teaching(plan.teacher, encoder, vocabulary, wish, config)


def student_config(stage: Stage, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The configuration of a stage's student, whether it is trained yet or not."""
    student = stage.recipe.student
    if stage.start is not None:
        return student_config(stage.start, tokenizer)
    if isinstance(student, ScratchStudent):
        return architecture_config(student.architecture, vocabulary_size=len(tokenizer))
    if isinstance(student, PrunedStudent):
        return pruned_config(student, stage.run)
    assert isinstance(student, PretrainedStudent), "a student from a recipe has a stage that it starts from"
    return config_of(given(student, "fp32"), who="student")


def _student_config(stage: Stage) -> PreTrainedConfig:
    return student_config(stage, load_tokenizer(str(stage.run.tokenizer)))


def _student_tokenizer(stage: Stage, examples: list[Example], ledger: Ledger) -> PreTrainedTokenizerBase:
    """The student's tokenizer with its chat template resolved."""
    student = stage.recipe.student
    if stage.start is not None:
        return load_tokenizer(str(stage.start.run.tokenizer))
    if isinstance(student, PretrainedStudent):
        return tokenizer_of(given(student, "fp32"), who="student")
    if isinstance(student, PrunedStudent):
        return decide_pruning(stage.recipe, student, examples, stage.run, ledger)
    assert isinstance(student, ScratchStudent), "a student from a recipe has a stage that it starts from"
    template = student.chat_template
    if isinstance(student.tokenizer, GivenTokenizer):
        tokenizer = _given_tokenizer(stage, student.tokenizer)
    else:
        tokenizer = train_tokenizer(texts(examples), student.tokenizer.vocabulary_size)
        template = template or "chatml"
    resolve_template(tokenizer, template, who="student")
    return tokenizer


def _given_tokenizer(stage: Stage, setting: GivenTokenizer) -> PreTrainedTokenizerBase:
    if setting.source != "teacher":
        return load_tokenizer(setting.source, setting.revision)
    source = _teacher_source(stage)
    assert source is not None, "the recipe's checks refuse a tokenizer from a teacher that is not named"
    return tokenizer_of(source, who="teacher")


def _teacher_source(stage: Stage) -> ModelSource | None:
    teacher = stage.recipe.teacher
    if stage.teacher is not None and teacher is not None:
        return held_as(trained(stage.teacher.run, teacher.dtype), teacher)
    return held_as(given(teacher, teacher.dtype), teacher) if isinstance(teacher, TeacherModel) else None


def _teaching(stage: Stage, student: Encoder, config: PreTrainedConfig, examples: Sequence[Example]) -> Teaching | None:
    """The teacher, where a signal asks it."""
    signals = stage.recipe.signals
    source = _teacher_source(stage)
    if source is None or not (signals.off_policy.weight or signals.on_policy.weight):
        return None
    encoder = encoder_of(source, who="teacher")
    teacher_config = (
        student_config(stage.teacher, encoder.tokenizer) if stage.teacher else config_of(source, who="teacher")
    )
    speakers = (
        speaker("student", student, config.vocab_size),
        speaker(source.path, encoder, teacher_config.vocab_size),
    )
    vocabulary, wish = join(stage.recipe.verbalizer.vocabulary, *speakers, examples, stage.run)
    return Teaching(source, encoder, vocabulary, wish, teacher_config)


def _start(stage: Stage) -> ModelSource | None:
    if stage.start is not None:
        return trained(stage.start.run, "fp32")
    student = stage.recipe.student
    if isinstance(student, PrunedStudent):
        return ModelSource(path=str(stage.run.pruned), dtype="fp32", tokenizer=str(stage.run.tokenizer))
    return given(student, "fp32") if isinstance(student, PretrainedStudent) else None


def _pruning(stage: Stage) -> PlannedPruning | None:
    """What a student that was cut from a bigger model keeps of it, here or where it starts from."""
    if stage.start is not None:
        return _pruning(stage.start)
    return read_pruning(stage.run).planned if isinstance(stage.recipe.student, PrunedStudent) else None


def teacher_room(recipe: Recipe, teaching: Teaching | None) -> int | None:
    """Longest teacher prompt in tokens; None where nothing limits it."""
    if teaching is None:
        return None
    limits = [recipe.verbalizer.demonstration.max_tokens]
    limits.append(None if teaching.context is None else teaching.context - recipe.rollouts.max_new_tokens)
    return min((limit for limit in limits if limit is not None), default=None)
