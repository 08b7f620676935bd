"""What DeepSpeed holds of the student on a process's device, and of what is offloaded in main memory.

Pure arithmetic, as DeepSpeed 0.19 allocates. Sizes in bytes; P parameters, N processes.
"""

from typing import NamedTuple

from dudi_kit.plan.job import FP32, Job
from dudi_kit.recipe.schema.training import Optimizer

MOMENTS: dict[Optimizer, int] = {"adamw": 2 * FP32, "adamw_8bit": 2, "paged_adamw_8bit": 2}
"""Bytes of AdamW's two moments of a parameter."""

FLAT = 5 * 10**8
"""Elements that DeepSpeed reduces at once where it does not shard gradients (`MEMORY_OPT_ALLREDUCE_SIZE`)."""


class Engine(NamedTuple):
    """What DeepSpeed holds of the student."""

    weights: int
    optimizer: int
    held: int
    """Gradients from one step to the next."""

    gathered: int
    """Gradients while the second micro-batch of a step, or the only one, goes backward."""

    full: int
    """Gradients at the end of backward."""

    bucket: int
    """Buffers while gradients come in."""

    update: int
    """Buffers from there to the end of the optimizer's step."""

    host: int = 0
    """Of what is offloaded: in main memory, not in a GPU's."""


def engine_of(job: Job) -> Engine:
    """Weights, gradients, optimizer and buffers under the stage that runs.

    fp32 without ZeRO is torch alone, its gradients flattened into a copy for the reduction. bf16 at stage 1 (0 runs as
    1) is DeepSpeed's BF16_Optimizer: gradients whole in fp32 beside those in bf16, neither ever freed. The others are
    its ZeRO optimizer: fp32 weights of a share even where the weights are fp32 already, and a bucket.
    """
    P, b = job.student.parameters, job.size
    flat = FP32 * P if P <= FLAT else 0  # DeepSpeed copies what is below that size, and no single larger one
    # torch's AdamW: on a CPU two temporaries for one parameter at a time, on a GPU one for all of them.
    step = 2 * FP32 * job.student.largest_matrix if job.on_cpu else FP32 * P
    step_of_share = (2 if job.on_cpu else 1) * FP32 * _share(job)
    if job.stage == 0 and job.precision == "fp32":
        held = FP32 * P if job.accumulation > 1 else 0
        return Engine(b * P, MOMENTS[job.optimizer] * P, 0, held, FP32 * P, 0, max(flat, step))
    if job.offloads("optimizer"):
        return _offloaded(job)
    optimizer = (FP32 + MOMENTS[job.optimizer]) * _share(job)
    if job.precision == "bf16" and job.stage <= 1:
        both = (FP32 + b) * P
        return Engine(b * P, optimizer, both, both, both, 0, max(flat, step_of_share))
    share, bucket = FP32 * _share(job), _bucket(job)
    if job.stage == 1:
        held = FP32 * P if job.accumulation > 1 else 0
        return Engine(b * P, optimizer, 0, held, FP32 * P, FP32 * bucket, FP32 * bucket + 2 * share)
    # fp32 sums are kept from micro-batch to micro-batch; the bucket is cast to fp32 while it is reduced.
    update = max(_reducing(job), share + step_of_share)
    held = share if job.stage == 3 else 0  # its sums are allocated once, and zeroed between steps
    return Engine(weights_at_work(job), optimizer, held, share, share, b * bucket, update, weights_on_host(job))


def _offloaded(job: Job) -> Engine:
    """Master weights, moments and the sums of gradients in main memory, where they are updated."""
    gradients = job.student.parameters * job.size if job.stage == 1 else 0
    host = (2 * FP32 + MOMENTS[job.optimizer]) * _share(job) + weights_on_host(job)
    bucket = job.size * _bucket(job)
    return Engine(weights_at_work(job), 0, 0, gradients, gradients, bucket, _reducing(job), host)


def _share(job: Job) -> int:
    return -(-job.student.parameters // job.processes)


def _bucket(job: Job) -> int:
    return min(job.student.parameters, job.bucket) if job.on_cpu else job.bucket


def _reducing(job: Job) -> int:
    """A bucket, and the same in fp32 on its way to the other processes."""
    return job.size * _bucket(job) + (0 if job.size == FP32 else FP32 * min(job.student.parameters, job.bucket))


def shares_of_weights(job: Job) -> int:
    """The weights that a process's device holds all the time."""
    if job.stage < 3:
        return job.student.parameters * job.size
    return 0 if job.offloads("parameters") else _share(job) * job.size


def weights_at_work(job: Job) -> int:
    """The same, at stage 3 with what is gathered while a layer works: two buckets, or the largest matrix."""
    if job.stage < 3:
        return shares_of_weights(job)
    gathered = min(job.student.parameters, max(2 * job.bucket, job.student.largest_matrix))
    return shares_of_weights(job) + gathered * job.size


def weights_on_host(job: Job) -> int:
    """A process's share of the weights, where it lies in main memory."""
    return _share(job) * job.size if job.offloads("parameters") else 0
