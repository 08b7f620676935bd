"""Memory of one training process, estimated before a weight is loaded.

Pure arithmetic on shapes: which tensors are alive at once in each phase of a step, as `train.loop`, `train.step`, the
signals and DeepSpeed 0.19 hold them. The peak is that of the largest phase. All sizes in bytes; P parameters of the
student, N processes. Not in the estimate: what an allocator keeps unused, and inputs of other lengths than planned.
`benchmarks/memory.py` holds it against measured peaks.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

from dudi_kit.plan.engine_memory import engine_of, shares_of_weights, weights_at_work, weights_on_host
from dudi_kit.plan.job import BYTES, FP32, Inputs, Job
from dudi_kit.plan.loss_memory import (
    chunks,
    loss_bytes,
    strip_bytes,
    student_is_whole,
    student_lines,
    teacher_lines,
    teacher_predictions,
)
from dudi_kit.plan.shape import ModelShape
from dudi_kit.recipe.schema.adapters import Quantization
from dudi_kit.recipe.schema.models import MemorySize

Part = Literal[
    "libraries",
    "weights",
    "gradients",
    "optimizer",
    "engine",
    "teacher",
    "reference",
    "activations",
    "logits",
    "rollouts",
    "allocator",
]
Phase = Literal["sample", "ask the teacher", "backward", "update"]
Parts = dict[Part, int]

PACKED: dict[Quantization, float] = {"int8": 1.0, "nf4": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""Bytes of a weight in a linear layer: nf4 adds a scale of one byte for 64 weights, and one of four for 256 scales."""

CPU_LIBRARIES = 520 * 2**20
"""Measured: Python, torch, transformers, DeepSpeed and bitsandbytes resident, with their kernels' caches."""

CUDA_LIBRARIES = 10**9
"""CUDA's context with the kernels of torch (about 0.5 GB), cuBLAS's workspaces, NCCL's buffers (0.2–0.4 GB)."""

MAPPED = 2**25
"""From this size on glibc gives a block a mapping of its own, and gives it back (`DEFAULT_MMAP_THRESHOLD_MAX`)."""

HOLES, LEFT = 0.5, 1.25
"""Of what forward and backward hold in the heap: holes between it while it is there, and what remains of it afterwards,
which is not given back. Measured on CPU runs (`benchmarks/memory.py`)."""

SAMPLING = 8
"""Bytes of a logit while a token is drawn from it: a copy in fp32, and its probability. Where `top_p` has to sort a
whole vocabulary, which is rare, there are 28 more."""


class Estimate(NamedTuple):
    """Memory of each phase of a step."""

    phases: dict[Phase, Parts]

    @property
    def peak_phase(self) -> Phase:
        """The phase with the most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> int:
        """Bytes of it."""
        return sum(self.phases[self.peak_phase].values())


def estimate(job: Job) -> Estimate:
    """The phases of the largest step."""
    return max((_estimate(job, inputs) for inputs in job.inputs), key=lambda made: made.peak)


def _estimate(job: Job, inputs: Inputs) -> Estimate:
    engine = engine_of(job.learner)
    always: Parts = {
        "libraries": CPU_LIBRARIES if job.on_cpu else CUDA_LIBRARIES,
        "weights": engine.weights + frozen_bytes(job),
        "optimizer": engine.optimizer,
        "teacher": teacher_bytes(job),
        "reference": reference_bytes(job),
    }
    heap = heap_bytes(job, inputs)
    held: Parts = always | {"gradients": engine.held, "allocator": round(LEFT * heap)}
    if job.stage == 3:
        held |= {"engine": engine.bucket}  # allocated at the start, and kept
    phases: dict[Phase, Parts] = {}
    if job.rolls_out and inputs.sampled_rows:
        phases["sample"] = held | {"weights": sampling_weights(job), "rollouts": rollout_bytes(job, inputs)}
    said = teacher_predictions(job, inputs)
    if said:
        phases["ask the teacher"] = held | {"logits": said, "activations": teacher_pass(job, inputs)}
    working: Parts = {
        "activations": activations(job, inputs),
        "logits": loss_bytes(job, inputs),
        "allocator": round(HOLES * heap),
    }
    phases["backward"] = always | {"gradients": engine.gathered, "engine": engine.bucket} | working
    # The gradient of a tied embedding comes twice, from the head and from the input, and their sum is a third.
    embedding = job.student.vocabulary * job.student.hidden * job.size * (3 if job.student.tied else 1)
    update = max(engine.update, embedding) if job.adapter is None else engine.update
    phases["update"] = held | {"gradients": engine.full, "engine": update}
    return Estimate(phases)


def frozen_bytes(job: Job) -> int:
    """Of the weights under an adapter, which have neither gradient nor optimizer."""
    if job.adapter is None:
        return 0
    return weights_at_work(job) if job.packed == "none" else held_bytes(job.student, job.size, job.packed)


def sampling_weights(job: Job) -> int:
    """ZeRO-3 gathers the whole student once, beside the shares."""
    if job.stage < 3:
        return shares_of_weights(job.learner) + frozen_bytes(job)
    return shares_of_weights(job) + (job.student.parameters + (job.adapter or 0)) * job.size


def offloaded_bytes(job: Job) -> int:
    """Main memory of one process for what has left its device."""
    return engine_of(job.learner).host + (weights_on_host(job) if job.adapter is not None else 0)


def reference_bytes(job: Job) -> int:
    """Of π_ref, where it is a model of its own."""
    held = "sequence" in job.signals and job.copies_reference
    return held_bytes(job.student, job.size, job.packed) if held else 0


def teacher_bytes(job: Job) -> int:
    """Of the teacher's weights, as far as they lie on the device."""
    if job.teacher is None:
        return 0
    if job.placement == "sharded":
        return weights_at_work(replace(job, student=job.teacher, precision=job.teacher_dtype, stage=3))
    whole = held_bytes(job.teacher, BYTES[job.teacher_dtype], job.quantization)
    return whole if job.device_memory is None else min(whole, job.device_memory)


def held_bytes(shape: ModelShape, size: int, quantization: Quantization) -> int:
    """Of all weights: the linear layers packed, embeddings, head and norms not."""
    packed = 0 if quantization == "none" else shape.parameters - shape.embeddings
    return round(packed * PACKED.get(quantization, 0)) + (shape.parameters - packed) * size


def bytes_of(text: MemorySize) -> int:
    """`20GiB` in bytes."""
    return int(text[:-3]) * {"MiB": 2**20, "GiB": 2**30}[text[-3:]]


def teacher_pass(job: Job, inputs: Inputs) -> int:
    """Temporaries of the teacher's forward pass."""
    assert job.teacher is not None, "asked for a teacher that there is"
    (lines, width), size = teacher_lines(job, inputs), BYTES[job.teacher_dtype]
    masked = job.teacher_sharing is not None or needs_mask(job, job.teacher, width)
    mask = 2 * mask_bytes(lines, width, size) if masked else 0
    unpacked = 0 if job.quantization == "none" else size * job.teacher.hidden * job.teacher.intermediate
    return forward_bytes(job.teacher, lines, width, size) + mask + unpacked


def heap_bytes(job: Job, inputs: Inputs) -> int:
    """On a CPU, what forward and backward hold in blocks below 32 MiB, which glibc keeps in its heap. On a GPU nothing:
    there, what the allocator keeps depends on the order of all sizes."""
    if not job.on_cpu:
        return 0
    lines, width = student_lines(job, inputs)
    widest = lines * width * max(job.student.intermediate, job.student.hidden) * job.size
    whole = student_is_whole(job, inputs)
    logits = strip_bytes(job, inputs)
    if whole:
        chunk = chunks(job, inputs)
        logits = loss_bytes(job, inputs) - (chunk if chunk >= MAPPED else 0)
    return (activations(job, inputs) if widest < MAPPED else 0) + logits


def activations(job: Job, inputs: Inputs) -> int:
    """What the student's forward pass keeps for backward; with checkpointing, the inputs of all layers, and all of the
    one that is computed again."""
    lines, width = student_lines(job, inputs)
    mask = mask_bytes(lines, width, job.size)
    once = mask if job.sharing is not None else 0  # it comes made, for all layers
    each = mask if needs_mask(job, job.student, width) else 0
    one = lines * width * layer_bytes(job.student, job.size) + each
    unpacked = 0 if job.packed == "none" else job.size * job.student.hidden * job.student.intermediate
    if job.recomputes:
        return one + job.student.layers * lines * width * job.student.hidden * job.size + once + unpacked
    return job.student.layers * one + once + unpacked


def layer_bytes(shape: ModelShape, size: int) -> int:
    """Kept of one token by one layer: inputs of norms in fp32 and normalised, what the two halves read, q, k, v (for
    every head) and their result, gate, its activation, up, and the product."""
    norm = FP32 + (FP32 if shape.fp32_norms else size)
    heads = norm * (shape.query + shape.key_value) if shape.head_norms else 0
    wide = 4 if shape.gated else 2
    hidden = (shape.norms * norm + 2 * size) * shape.hidden
    return hidden + 4 * size * shape.query + heads + wide * size * shape.intermediate


def needs_mask(job: Job, shape: ModelShape, columns: int) -> bool:
    """Attention is told who sees whom: rows that share a line, or a window that is shorter than the line.

    Elsewhere all see what is before them, which kernels know by themselves.
    """
    return job.packs or (shape.window is not None and columns >= shape.window)


def mask_bytes(lines: int, columns: int, size: int) -> int:
    """Who sees whom, to be added to the scores; every layer's attention makes it for itself, unless it comes made."""
    return lines * columns**2 * size


def forward_bytes(shape: ModelShape, rows: int, columns: int, size: int) -> int:
    """Temporaries of a pass without gradients and without a mask: the widest point of a layer."""
    feed_forward = (2 * shape.hidden + 3 * shape.intermediate) * size
    norm = (2 * size + 2 * FP32) * shape.hidden
    attention = (2 * shape.hidden + 5 * shape.query) * size
    return rows * columns * max(feed_forward, norm, attention)


def rollout_bytes(job: Job, inputs: Inputs) -> int:
    """Keys and values of all rows that a process samples, and the larger of prefill and sampling."""
    shape, rows, prompt = job.student, inputs.sampled_rows, inputs.sampled_prompt
    cache = 2 * shape.key_value * job.size * rows * (prompt + job.new_tokens)
    prefill = forward_bytes(shape, rows, prompt, job.size) + 2 * mask_bytes(rows, prompt, job.size)
    drawing = rows * shape.vocabulary * (job.size + SAMPLING)
    # A layer's cache is copied when it grows.
    return cache * (shape.layers + 1) + max(prefill, drawing)
