"""What a planned run needs of its hardware: memory under each ZeRO stage, disk, and which fields would save memory."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from dudi_kit.data.batches import rounded
from dudi_kit.plan.engine import Offloaded
from dudi_kit.plan.engine_memory import MOMENTS
from dudi_kit.plan.hardware import Hardware
from dudi_kit.plan.job import BYTES, FP32, Inputs, Job
from dudi_kit.plan.memory import (
    CPU_LIBRARIES,
    estimate,
    held_bytes,
    offloaded_bytes,
    reference_bytes,
    teacher_bytes,
)
from dudi_kit.plan.schema import PlannedCache, PlannedDisk, PlannedMemory, Remedy, StageMemory
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.models import PrunedStudent
from dudi_kit.recipe.schema.signals import RefreshedReference

STAGES = (0, 1, 2, 3)
WORTH_SAYING = 0.01
"""Of the peak: a remedy that saves less is none."""

TOKENIZER_BYTES = 10 * 10**6
"""A large vocabulary's tokenizer.json: in the run directory, in each checkpoint and beside the final model."""

CUDA_HOST_LIBRARIES = 3 * 10**9
"""Main memory of a process with CUDA's libraries loaded."""


class Change(NamedTuple):
    """A field with another value."""

    field: str
    now: str
    then: str
    job: Job


def planned_memory(job: Job, hardware: Hardware) -> PlannedMemory:
    """Every stage's estimate, and what else would help at the recipe's own."""
    stages = []
    for stage in STAGES:
        made = estimate(replace(job, stage=stage))
        stages.append(
            StageMemory(
                stage=stage,
                peak_bytes=made.peak,
                peak_phase=made.peak_phase,
                phases={phase: dict(parts) for phase, parts in made.phases.items()},  # type: ignore[arg-type]
            )
        )
    return PlannedMemory(
        hardware=str(hardware),
        nodes=hardware.nodes,
        limit_bytes=hardware.bytes_for_a_process,
        stage=job.stage,
        stages=stages,
        host_bytes=host_bytes(job) * hardware.devices,
        offloaded_bytes=offloaded_bytes(job) * hardware.devices,
        remedies=remedies(job, hardware),
    )


def host_bytes(job: Job) -> int:
    """Main memory of one process while it loads: the teacher first, unless it is packed on its GPU; then the student in
    fp32 and the reference. On a CPU they stay, and training needs more."""
    libraries = CPU_LIBRARIES if job.on_cpu else CUDA_HOST_LIBRARIES
    loaded = job if job.on_cpu and job.placement == "offload" else replace(job, placement="device", device_memory=None)
    teacher = 0 if job.teacher is None or job.quantization != "none" else teacher_bytes(loaded)
    student = held_bytes(job.student, FP32, job.packed) * (2 if reference_bytes(job) else 1)
    return libraries + (teacher + student if job.on_cpu else max(teacher, student))


def planned_disk(recipe: Recipe, parameters: int, adapter: int | None, cache: PlannedCache | None) -> PlannedDisk:
    """What training leaves on disk at most. adapter: its parameters."""
    watched = recipe.evaluation.during_training is not None
    # Without checkpoints there is still the one that a signal leaves. The best step's is kept beside the newest.
    kept = recipe.training.keep_checkpoints + 1 if recipe.training.checkpoint_every or watched else 1
    kept += watched
    checkpoint = checkpoint_bytes(recipe, parameters, adapter)
    final, tokenizers = (parameters + (adapter or 0)) * FP32, TOKENIZER_BYTES * (kept + 2)
    cached = _yet_to_write(cache) if cache else 0
    pruned = final if isinstance(recipe.student, PrunedStudent) and recipe.student.cold_start is None else 0
    return PlannedDisk(
        checkpoint_bytes=checkpoint,
        checkpoints=kept,
        final_bytes=final,
        pruned_bytes=pruned,
        tokenizer_bytes=tokenizers,
        cache_bytes=cached,
        total_bytes=kept * checkpoint + final + pruned + tokenizers + cached,
    )


def _yet_to_write(cache: PlannedCache) -> int:
    stores = [store for store in (cache.teacher, cache.reference) if store is not None and store.rows]
    return sum(store.bytes * (store.rows - store.answered) // store.rows for store in stores)


def checkpoint_bytes(recipe: Recipe, parameters: int, adapter: int | None) -> int:
    """The model as a transformers folder, with its adapter merged and beside it; of what is trained, fp32 weights where
    those differ, and moments; a refreshed reference."""
    size = BYTES[recipe.training.precision]
    refreshed = isinstance(recipe.signals.sequence.reference, RefreshedReference) and recipe.signals.sequence.weight > 0
    folder = (parameters + (adapter or 0)) * size
    trained, same = (parameters, size == FP32) if adapter is None else (adapter, False)
    state = trained * (MOMENTS[recipe.training.optimizer] + (0 if same else FP32))
    return folder * (2 if refreshed else 1) + state


def remedies(job: Job, hardware: Hardware) -> list[Remedy]:
    """Fields that lower the peak, each with what it saves alone, the best first."""
    now = estimate(job).peak
    found = []
    for change in _changes(job, hardware.bytes_for_a_process):
        peak = estimate(change.job).peak
        if now - peak > WORTH_SAYING * now:
            found.append(Remedy(field=change.field, now=change.now, then=change.then, peak_bytes=peak))
    return sorted(found, key=lambda remedy: remedy.peak_bytes)


def _changes(job: Job, limit: int) -> Iterator[Change]:
    """Every field that might help, with the mildest value that is enough, or the strongest there is."""
    if rows := _micro_batch(job, limit):
        yield rows
    if not job.recomputes:
        yield Change("training.activation_checkpointing", "false", "true", replace(job, recomputes=True))
    if job.teacher is not None and job.placement == "device" and job.quantization == "none" and job.teacher_terms:
        for packed in ("int8", "nf4"):
            smaller = replace(job, quantization=packed, teacher_dtype="bf16")
            yield Change("teacher.quantization", "none", packed, smaller)
        if job.teacher_dtype == "fp32":
            yield Change("teacher.dtype", "fp32", "bf16", replace(job, teacher_dtype="bf16"))
    if job.quantization == "int8":
        yield Change("teacher.quantization", "int8", "nf4", replace(job, quantization="nf4"))
    for stage in STAGES[job.stage + 1 :]:
        yield Change("deepspeed.stage", str(job.stage), str(stage), replace(job, stage=stage))
    yield from _offloading(job)
    if job.precision == "fp32":
        yield Change("training.precision", "fp32", "bf16", replace(job, precision="bf16"))
    longest = max(inputs.row for inputs in job.inputs)
    if longest >= 64:
        half = rounded(longest // 2)
        shorter = tuple(_cut(inputs, half) for inputs in job.inputs)
        yield Change("data.max_length", f"{longest} (the longest row)", str(half), replace(job, inputs=shorter))
    if job.rolls_out and job.new_tokens >= 32:
        half = job.new_tokens // 2
        yield Change("rollouts.max_new_tokens", str(job.new_tokens), str(half), replace(job, new_tokens=half))
    sampled = job.inputs[0].sampled_rows
    if job.rolls_out and sampled > 1:
        fewer = tuple(inputs._replace(sampled_rows=sampled // 2) for inputs in job.inputs)
        yield Change("rollouts.prompts_at_once", str(sampled), str(sampled // 2), replace(job, inputs=fewer))


def _offloading(job: Job) -> Iterator[Change]:
    """What could leave the GPU at the recipe's stage, and smaller moments."""
    parts: tuple[Offloaded, ...] = ("optimizer", "parameters")
    for part in parts:
        moved = replace(job, offloaded=job.offloaded | {part})
        if moved.offloads(part) and part not in job.offloaded and (part != "optimizer" or job.optimizer == "adamw"):
            yield Change(f"deepspeed.offload.{part}", "none", "cpu", moved)
    if job.optimizer == "adamw" and not job.offloads("optimizer"):
        yield Change("training.optimizer", "adamw", "adamw_8bit", replace(job, optimizer="adamw_8bit"))


def _micro_batch(job: Job, limit: int) -> Change | None:
    """Halved until it fits, or down to 1."""
    rows = max(inputs.rows for inputs in job.inputs)
    if rows == 1:
        return None
    smaller, made = rows, job
    while smaller > 1:
        smaller = next(n for n in range(smaller // 2, 0, -1) if job.share % n == 0)
        inputs = tuple(one._replace(rows=smaller) for one in job.inputs)
        made = replace(job, inputs=inputs, accumulation=job.share // smaller)
        if estimate(made).peak <= limit:
            break
    return Change("training.micro_batch_size", str(rows), str(smaller), made)


def _cut(inputs: Inputs, longest: int) -> Inputs:
    """The same rows, no longer than that. What the teacher reads stays: its longest may be a row that is not cut."""
    shorter = ("prompt", "response", "row", "sampled_prompt")
    return inputs._replace(**{name: min(getattr(inputs, name), longest) for name in shorter})
