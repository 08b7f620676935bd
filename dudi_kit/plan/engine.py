"""DeepSpeed's configuration, compiled from the recipe: a recipe field owns each key here, or we do, with a reason."""

from typing import Any

from dudi_kit.plan.arithmetic import Arithmetic
from dudi_kit.recipe.schema import Recipe

NEVER = 10**9


def ds_config(recipe: Recipe, batches: Arithmetic) -> dict[str, Any]:
    """The dictionary that DeepSpeed is initialised with."""
    return {
        "train_batch_size": batches.batch_size,
        "train_micro_batch_size_per_gpu": batches.micro_batch_size,
        "gradient_accumulation_steps": batches.accumulation,
        "gradient_clipping": recipe.training.max_grad_norm,
        "zero_optimization": {"stage": engine_stage(recipe)},
        "bf16": {"enabled": recipe.training.precision == "bf16"},
        # Micro-batches are added up in fp32: in bf16 the sum would depend on how the batch is split.
        "data_types": {"grad_accum_dtype": "fp32"},
        # Or stage 1 rounds that sum to bf16 on its way through the (even one-process) reduction.
        "communication_data_type": "fp32",
        # The optimizer is torch's AdamW; DeepSpeed's own would compile C++ on the first run.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # We log ourselves.
        "steps_per_print": NEVER,
        "wall_clock_breakdown": False,
    }


def engine_stage(recipe: Recipe) -> int:
    """The ZeRO stage that runs: DeepSpeed sums bf16 gradients in fp32 from stage 1 on only."""
    return max(recipe.deepspeed.stage, 1) if recipe.training.precision == "bf16" else recipe.deepspeed.stage


def launch_command(processes: int, run_dir: str, *, resume: bool) -> list[str]:
    """Arguments after `python` that start the training processes of one machine."""
    worker = ["-m", "dudi_kit.train", run_dir, *(["--resume"] if resume else [])]
    if processes == 1:
        return worker
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *worker]
