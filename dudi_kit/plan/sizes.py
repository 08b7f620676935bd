"""How large a stage's rows and models are: tokens by language, and what the memory of a process depends on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformers import PreTrainedConfig

from dudi_kit.models.packing import sharing_of
from dudi_kit.models.scratch import count_parameters
from dudi_kit.models.targets import count_trained
from dudi_kit.plan.arithmetic import Arithmetic
from dudi_kit.plan.engine import bucket_of, offloaded_parts
from dudi_kit.plan.hardware import Hardware
from dudi_kit.plan.inputs import Sharings, largest_inputs
from dudi_kit.plan.job import Job
from dudi_kit.plan.memory import bytes_of
from dudi_kit.plan.rollouts import server_of
from dudi_kit.plan.rows import TrainingRows
from dudi_kit.plan.schema import LanguageShare
from dudi_kit.plan.shape import shape_of
from dudi_kit.plan.teaching import Teaching
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.signals import RefreshedReference, Signals


def shares_of(made: TrainingRows) -> dict[str, LanguageShare]:
    """Rows and tokens of each language."""
    rows: Counter[str] = Counter(row.language for row in made.rows)
    prompt, response, teacher = Counter[str](), Counter[str](), Counter[str]()
    for row in made.rows:
        prompt[row.language] += len(row.prompt)
        response[row.language] += len(row.response)
        teacher[row.language] += max((len(ids) for ids in row.teacher_prompts.values()), default=0)
    drawn: Counter[str] = Counter()
    for (language, _), quota in made.mixture.quotas.items():
        drawn[language] += quota
    return {
        code: LanguageShare(
            rows=rows[code],
            tokens=prompt[code] + response[code],
            prompt_tokens=prompt[code],
            response_tokens=response[code],
            teacher_prompt_tokens=teacher[code],
            rows_per_epoch=drawn[code],
        )
        for code in sorted(rows)
    }


def job_of(
    recipe: Recipe,
    config: PreTrainedConfig,
    teaching: Teaching | None,
    made: TrainingRows,
    batches: Arithmetic,
    hardware: Hardware,
    engine: Mapping[str, Any],
) -> Job:
    """What the memory of a training process depends on. engine: DeepSpeed's configuration."""
    adapter = recipe.student.adapter
    source = teaching.source if teaching else None
    job = Job(
        student=shape_of(config, count_parameters(config)),
        teacher=shape_of(teaching.config, count_parameters(teaching.config)) if teaching else None,
        teacher_dtype=source.dtype if source else "bf16",
        quantization=source.quantization if source else "none",
        precision=recipe.training.precision,
        stage=recipe.deepspeed.stage,
        processes=batches.processes,
        accumulation=batches.accumulation,
        signals=frozenset(name for name in Signals.model_fields if getattr(recipe.signals, name).weight > 0),
        new_tokens=recipe.rollouts.max_new_tokens,
        inputs=(),
        on_cpu=hardware.on_cpu,
        optimizer=recipe.training.optimizer,
        offloaded=offloaded_parts(recipe),
        bucket=bucket_of(engine),
        adapter=count_trained(config, adapter) if adapter else None,
        packed=adapter.quantization if adapter else "none",
        copies_reference=adapter is None or isinstance(recipe.signals.sequence.reference, RefreshedReference),
        spans=teaching is not None and teaching.vocabulary.mapping == "align",
        cache=recipe.teacher.cache.type if recipe.teacher else "none",
        recomputes=recipe.training.activation_checkpointing,
        packs=recipe.training.packing,
        placement=source.placement if source else "device",
        device_memory=bytes_of(source.device_memory) if source and source.device_memory else None,
    )
    sharings = sharings_of(job, config, teaching)
    at_once = _sampled_at_once(recipe, batches)
    inputs = largest_inputs(made.rows, made.mixture, batches, job.new_tokens, at_once, sharings)
    return replace(job, inputs=inputs, sharing=sharings.student, teacher_sharing=sharings.teacher)


def sharings_of(job: Job, config: PreTrainedConfig, teaching: Teaching | None) -> Sharings:
    """Of whom reads both responses of a pair at once; of a teacher whose answers to y are kept, y is asked apart."""
    student = sharing_of(config) if job.sides == 2 else None
    asks_both = teaching is not None and job.teacher_terms == 2 and job.cache == "none"
    return Sharings(student, sharing_of(teaching.config) if teaching is not None and asks_both else None)


def _sampled_at_once(recipe: Recipe, batches: Arithmetic) -> int:
    """Prompts that a process continues at once; none where a server does it."""
    share = batches.batch_size // batches.processes
    return 0 if server_of(recipe) else min(share, recipe.rollouts.prompts_at_once or share)
