"""Accelerate on a DeepSpeed engine, on whatever the machine has: CUDA with NCCL, or CPU with gloo."""

import contextlib
import io
import os
import socket
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs
from torch import Tensor, nn

from dudi_kit.errors import EnvironmentLack
from dudi_kit.plan.schema import Plan
from dudi_kit.recipe.schema.training import Training


def start_accelerator(plan: Plan) -> Accelerator:
    """Join the process group and make the Accelerator that owns the engine."""
    _stand_alone_environment()
    on_cpu = not torch.cuda.is_available()
    if not on_cpu and int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
        raise EnvironmentLack(
            f"{plan.processes} processes need as many GPUs, and this machine has {torch.cuda.device_count()}; "
            "start fewer with --processes."
        )
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed looks for a GPU first and warns
        _use_plain_gloo()
    handlers = [InitProcessGroupKwargs(backend="gloo")] if on_cpu else []
    plugin = DeepSpeedPlugin(hf_ds_config=plan.deepspeed)
    accelerator = Accelerator(
        deepspeed_plugin=plugin, kwargs_handlers=handlers, gradient_accumulation_steps=plan.accumulation
    )
    if accelerator.num_processes != plan.processes:
        raise EnvironmentLack(
            f"the plan is for {plan.processes} processes and {accelerator.num_processes} were started; "
            f"plan again with --processes {accelerator.num_processes}."
        )
    return accelerator


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, as is usual: norms and biases are left alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=training.learning_rate, betas=training.betas
    )


def prepare(accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    """Put the student into the engine. DeepSpeed's bf16 optimizer prints its memory to stdout, which is kept away."""
    with contextlib.redirect_stdout(io.StringIO()):
        engine, wrapped = accelerator.prepare(model, optimizer)
    return engine, wrapped


def set_learning_rate(optimizer: Any, rate: float) -> None:
    """Give every parameter group this rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def backward(engine: Any, loss: Tensor, *, last: bool) -> float | None:
    """Backward of one micro-batch, and the optimizer step after the last one of a batch.

    The engine must not divide by the accumulation steps: the loss is a share of the global mean already. Returns the
    global gradient norm before clipping, after the last micro-batch.
    """
    engine.set_gradient_accumulation_boundary(is_boundary=last)
    engine.backward(loss, scale_wrt_gas=False)
    if not last:
        return None
    plain = _plain_gradient_norm(engine)
    engine.step()
    norm = engine.get_global_grad_norm() if plain is None else plain
    return None if norm is None else float(norm)


def _plain_gradient_norm(engine: Any) -> Tensor | None:
    """In fp32 without ZeRO the engine clips with torch and keeps no norm; the gradients are still on the parameters."""
    if engine.zero_optimization() or engine.bfloat16_enabled():
        return None
    return nn.utils.get_total_norm([p.grad for p in engine.module.parameters() if p.grad is not None])


def leave_process_group() -> None:
    """Without this, gloo with two processes sometimes aborts after the work is done."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _stand_alone_environment() -> None:
    """One process without a launcher: what torchrun would have set, or DeepSpeed looks for MPI."""
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _use_plain_gloo() -> None:
    """DeepSpeed's shared-memory collectives for CPU are compiled at the first start (a minute, and fatal without a
    compiler); its own table of operators that suit this machine lets us say no."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
