"""Accelerate on a DeepSpeed engine, on whatever the machine has: CUDA with NCCL, or CPU with gloo."""

import contextlib
import copy
import io
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs
from torch import Tensor, nn
from transformers.integrations import HfDeepSpeedConfig, unset_hf_deepspeed_config

from dudi_kit.errors import EnvironmentLack, ModelError, RecipeError
from dudi_kit.plan.schema import Plan
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.training import Optimizer
from dudi_kit.train.clock import NO_CLOCK, Clock


def start_accelerator(plan: Plan, *, patience: timedelta) -> Accelerator:
    """Join the process group and make the Accelerator that owns the engine. patience: of a collective."""
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
    group = InitProcessGroupKwargs(backend="gloo" if on_cpu else "nccl", timeout=patience)
    plugin = DeepSpeedPlugin(hf_ds_config=plan.deepspeed)
    accelerator = Accelerator(
        deepspeed_plugin=plugin, kwargs_handlers=[group], gradient_accumulation_steps=plan.accumulation
    )
    # Accelerate lets transformers cut up whatever is loaded from here on, the teacher too; see `partitioned_at_load`.
    unset_hf_deepspeed_config()
    if accelerator.num_processes != plan.processes:
        raise EnvironmentLack(
            f"the plan is for {plan.processes} processes and {accelerator.num_processes} were started; "
            f"plan again with --processes {accelerator.num_processes}."
        )
    _require_usable(plan)
    return accelerator


def _require_usable(plan: Plan) -> None:
    """Refuse what DeepSpeed would refuse after the models are loaded."""
    from deepspeed.ops.op_builder import AsyncIOBuilder
    from deepspeed.runtime.config import DeepSpeedConfig

    with extra_may_be_refused(plan.deepspeed):
        DeepSpeedConfig(copy.deepcopy(plan.deepspeed))
    zero = plan.deepspeed["zero_optimization"]
    folders = {
        part["nvme_path"]
        for key in ("offload_optimizer", "offload_param")
        if (part := zero.get(key, {})).get("nvme_path")
    }
    for folder in folders:
        if not os.path.isdir(folder):
            raise EnvironmentLack(f"deepspeed.offload.nvme_path: no such folder on this machine: {folder}.")
    if folders and not AsyncIOBuilder().is_compatible(verbose=False):
        raise EnvironmentLack(
            "deepspeed.offload: 'nvme' needs libaio, whose headers are not on this machine (Debian's libaio-dev); "
            "install it, or offload to 'cpu'."
        )


@contextmanager
def extra_may_be_refused(extra: Mapping[str, Any]) -> Iterator[None]:
    """What DeepSpeed raises for values that it does not take, as a fault of the recipe. Nothing where it sets none."""
    try:
        yield
    except (ValueError, TypeError, AssertionError, AttributeError) as error:
        if not extra:
            raise
        said = " ".join(str(error).split())
        raise RecipeError(f"deepspeed.extra: DeepSpeed can't be set up with it: {said}") from error


def make_optimizer(model: nn.Module, recipe: Recipe, notice: Callable[[str], None]) -> torch.optim.Optimizer:
    """AdamW as the recipe wants it; weight decay on matrices only, as is usual: norms and biases are left alone.

    notice: told which AdamW updates offloaded states.
    """
    training = recipe.training
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if _dimensions(p) >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if _dimensions(p) < 2], "weight_decay": 0.0},
    ]
    made = _optimizer_class(recipe, notice)
    return made([group for group in groups if group["params"]], lr=training.learning_rate, betas=training.betas)


def _dimensions(parameter: nn.Parameter) -> int:
    """Of the whole parameter, of which a partitioned student holds a flat piece."""
    shape: Sequence[int] = getattr(parameter, "ds_shape", parameter.shape)
    return len(shape)


def _optimizer_class(recipe: Recipe, notice: Callable[[str], None]) -> Callable[..., torch.optim.Optimizer]:
    """The three AdamW have the same arguments."""
    if recipe.training.optimizer != "adamw":
        return _of_bitsandbytes(recipe.training.optimizer)
    if recipe.deepspeed.offload.optimizer == "none" or not torch.cuda.is_available():
        return torch.optim.AdamW
    try:
        from deepspeed.ops.op_builder import CPUAdamBuilder

        CPUAdamBuilder().load(verbose=False)  # compiled at the first use on a machine
        from deepspeed.ops.adam import DeepSpeedCPUAdam
    except Exception as error:  # a compiler, a header or a matching CUDA may be missing: each raises its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        notice(f"offloaded optimizer: torch's AdamW, which is slower than DeepSpeed's CPU Adam ({reason})")
        return torch.optim.AdamW
    notice("offloaded optimizer: DeepSpeed's CPU Adam")
    made: Callable[..., torch.optim.Optimizer] = DeepSpeedCPUAdam
    return made


def _of_bitsandbytes(name: Optimizer) -> Callable[..., torch.optim.Optimizer]:
    if name == "paged_adamw_8bit" and not torch.cuda.is_available():
        raise EnvironmentLack(
            "training.optimizer: paged_adamw_8bit keeps its moments in memory that a GPU and its machine share, and "
            "there is no GPU here; use adamw_8bit or adamw."
        )
    try:
        from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit
    except ImportError as error:
        raise EnvironmentLack(
            f"training.optimizer: {name} needs bitsandbytes, which can't be used here: {error}. Use adamw."
        ) from error
    return AdamW8bit if name == "adamw_8bit" else PagedAdamW8bit


@contextmanager
def partitioned_at_load(plan: Plan) -> Iterator[None]:
    """What transformers loads inside is cut up at once under ZeRO-3: the whole student is nowhere but in the first
    process's main memory. Outside nothing is: teacher and reference stay whole.
    """
    config = HfDeepSpeedConfig(plan.deepspeed)  # transformers sees it as long as it lives
    try:
        yield
    except RuntimeError as error:  # under ZeRO-3 transformers raises where it else reports
        fault = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), None)
        if fault is None:
            raise
        raise ModelError(f"student.model: its weights do not fit its config.json: {fault}") from error
    finally:
        del config
        unset_hf_deepspeed_config()


class Student(NamedTuple):
    """The student in the engine."""

    engine: Any
    """DeepSpeed's; its forward and backward are the student's."""

    optimizer: Any

    whole: Callable[[], AbstractContextManager[Any]]
    """The student as a plain transformers model with all its weights, for as long as the context lasts: to sample from,
    to copy and to save. Every process must enter it. Under ZeRO-3 the weights are gathered once, and freed after."""


def prepare(accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer) -> Student:
    """Put the student into the engine. DeepSpeed's bf16 optimizer prints its memory to stdout, which is kept away."""
    sharded = accelerator.state.deepspeed_plugin.zero_stage == 3
    shell = hollow(model).to(accelerator.device) if sharded else None
    with contextlib.redirect_stdout(io.StringIO()):
        engine, wrapped = accelerator.prepare(model, optimizer)
    whole = partial(filled, shell, engine.module) if shell else partial(nullcontext, engine.module)
    return Student(engine, wrapped, whole)


def hollow(model: nn.Module) -> nn.Module:
    """The model without its weights: the same modules, buffers and tied parameters, none of DeepSpeed's hooks.

    Inside the engine each module fetches its weights when it is called and drops them afterwards: a token of a rollout
    would cost as many gathers as there are layers.
    """
    empty = {
        id(p): nn.Parameter(torch.empty(0, dtype=p.dtype, device=p.device), p.requires_grad) for p in model.parameters()
    }
    return copy.deepcopy(model, dict(empty))


@contextmanager
def filled(shell: nn.Module, sharded: nn.Module) -> Iterator[nn.Module]:
    """Give a hollow model the weights of the sharded one, gathered and shared, and take them away again."""
    pairs = list(zip(shell.parameters(), sharded.parameters(), strict=True))
    with gathered(sharded):
        for mine, theirs in pairs:
            mine.data = theirs.data
        try:
            yield shell
        finally:
            for mine, _ in pairs:
                mine.data = mine.data.new_empty(0)


def gathered(model: nn.Module) -> AbstractContextManager[None]:
    """All weights of a partitioned model, to be read by every process; nothing where it is whole."""
    return whole(list(model.parameters()))


def whole(parameters: list[nn.Parameter]) -> AbstractContextManager[None]:
    """The same of some parameters."""
    from deepspeed import zero  # late: what it takes the machine for is said first, in `start_accelerator`

    made: AbstractContextManager[None] = zero.GatheredParameters(parameters)
    return made


def shard_frozen(model: nn.Module, plan: Plan) -> Any:
    """A model that does not learn, each process holding a share of its weights: an engine to be called as the model is.

    Every process must call it as often as the others. The model may be whole, or have been loaded in
    `partitioned_at_load`; with `deepspeed.offload.parameters` its shares lie where the student's do.
    """
    keys = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "steps_per_print")
    zero = {key: value for key, value in plan.deepspeed["zero_optimization"].items() if key != "offload_optimizer"}
    config = {key: plan.deepspeed[key] for key in keys}
    config |= {"zero_optimization": zero | {"stage": 3}}
    config["bf16"] = {"enabled": next(model.parameters()).dtype == torch.bfloat16}
    import deepspeed

    with contextlib.redirect_stdout(io.StringIO()):
        engine, *_ = deepspeed.initialize(model=model, config=config)
    engine.module.eval()
    engine.training = False
    return engine


def set_learning_rate(optimizer: Any, rate: float) -> None:
    """Give every parameter group this rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def backward(engine: Any, loss: Tensor, *, last: bool, clock: Clock = NO_CLOCK) -> float | None:
    """Backward of one micro-batch, and the optimizer step after the last one of a batch.

    The engine must not divide by the accumulation steps: the loss is a share of the global mean already. Returns the
    global gradient norm before clipping, after the last micro-batch; where it is no number, no step was taken.
    """
    engine.set_gradient_accumulation_boundary(is_boundary=last)
    with clock("loss"):  # until the student's own part of it begins
        engine.backward(loss, scale_wrt_gas=False)
    if not last:
        return None
    with clock("optimizer"):
        return _step(engine)


def _step(engine: Any) -> float | None:
    plain = _plain_gradient_norm(engine)
    if plain is not None and not math.isfinite(plain):
        return plain
    engine.step()
    if not engine.was_step_applied():  # for its gradient is no number; ZeRO-3 keeps the norm of the step before
        return math.inf
    norm = engine.get_global_grad_norm() if plain is None else plain
    return None if norm is None else float(norm)


def _plain_gradient_norm(engine: Any) -> float | None:
    """In fp32 without ZeRO the engine clips with torch and keeps no norm; the gradients are still on the parameters."""
    if engine.zero_optimization() or engine.bfloat16_enabled():
        return None
    return nn.utils.get_total_norm([p.grad for p in engine.module.parameters() if p.grad is not None]).item()


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
