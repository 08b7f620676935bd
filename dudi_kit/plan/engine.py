"""DeepSpeed's configuration, compiled from the recipe: a recipe field owns each key here, or we do, with a reason."""

from collections.abc import Mapping
from typing import Any, Literal

from dudi_kit.plan.arithmetic import Arithmetic
from dudi_kit.recipe.schema import Recipe

Offloaded = Literal["optimizer", "parameters"]

NEVER = 10**9

MOST_IN_A_BUCKET = 5 * 10**7
"""Elements that are reduced or gathered at once: 100 MB in bf16 keep a link busy, and DeepSpeed's own 5e8 cost every
GPU 1 to 2 GB beside a student of 0.5."""


def ds_config(recipe: Recipe, batches: Arithmetic, parameters: int) -> dict[str, Any]:
    """The dictionary that DeepSpeed is initialised with. parameters: of the student."""
    compiled = {
        "train_batch_size": batches.batch_size,
        "train_micro_batch_size_per_gpu": batches.micro_batch_size,
        "gradient_accumulation_steps": batches.accumulation,
        "gradient_clipping": recipe.training.max_grad_norm,
        "zero_optimization": _zero(recipe, parameters),
        "bf16": {"enabled": recipe.training.precision == "bf16"},
        # Micro-batches are added up in fp32: in bf16 the sum would depend on how the batch is split.
        "data_types": {"grad_accum_dtype": "fp32"},
        # Or stage 1 rounds that sum to bf16 on its way through the (even one-process) reduction.
        "communication_data_type": "fp32",
        # The optimizer is ours: torch's AdamW, bitsandbytes', or where a GPU's is offloaded DeepSpeed's own.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # We log ourselves.
        "steps_per_print": NEVER,
        "wall_clock_breakdown": False,
    }
    return _merged(compiled, recipe.deepspeed.extra)


def _zero(recipe: Recipe, parameters: int) -> dict[str, Any]:
    """The stage, what it offloads, and its buffers: on a GPU each is allocated whole, whatever the student's size."""
    stage, offload = engine_stage(recipe), recipe.deepspeed.offload
    bucket = min(parameters, MOST_IN_A_BUCKET)
    zero: dict[str, Any] = {"stage": stage}
    if stage:
        zero |= {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    if stage == 3:
        # DeepSpeed's defaults keep a billion gathered parameters, which is all of a student: nothing would be saved.
        zero |= {
            "stage3_prefetch_bucket_size": bucket,
            "stage3_max_live_parameters": 2 * bucket,
            "stage3_max_reuse_distance": 2 * bucket,
            # Or every linear layer of the process, the teacher's too, adds its bias in another rounding.
            "memory_efficient_linear": False,
        }
    for key, place in (("offload_optimizer", offload.optimizer), ("offload_param", offload.parameters)):
        if place != "none":
            zero[key] = {"device": place} | ({"nvme_path": offload.nvme_path} if place == "nvme" else {})
    return zero


def _merged(compiled: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`deepspeed.extra` over what was compiled; the recipe's checks have refused keys that are not its to set."""
    merged = dict(compiled)
    for key, value in extra.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def offloaded_parts(recipe: Recipe) -> frozenset[Offloaded]:
    """What leaves the GPU."""
    parts: tuple[Offloaded, ...] = ("optimizer", "parameters")
    return frozenset(part for part in parts if getattr(recipe.deepspeed.offload, part) != "none")


def bucket_of(config: Mapping[str, Any]) -> int:
    """Elements that ZeRO reduces at once, with this configuration; what DeepSpeed would refuse counts as ours."""
    size = config["zero_optimization"].get("reduce_bucket_size")
    return size if isinstance(size, int) else MOST_IN_A_BUCKET


def engine_stage(recipe: Recipe) -> int:
    """The ZeRO stage that runs: DeepSpeed sums bf16 gradients in fp32 from stage 1 on only."""
    return max(recipe.deepspeed.stage, 1) if recipe.training.precision == "bf16" else recipe.deepspeed.stage


def worker_command(run_dir: str, *, resume: bool, profile: bool = False) -> list[str]:
    """Arguments after `python` that start one training process, once the launcher has told it its rank."""
    options = {"--resume": resume, "--profile": profile}
    return ["-m", "dudi_kit.pipeline.worker", run_dir, *(option for option, wanted in options.items() if wanted)]


def launch_command(processes: int, run_dir: str, *, resume: bool) -> list[str]:
    """Arguments after `python` that start the training processes of one machine without `dudi-kit`."""
    worker = worker_command(run_dir, resume=resume)
    if processes == 1:
        return worker
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *worker]
