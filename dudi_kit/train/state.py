"""What the engine learns with, by parameter name and whole, whichever processes hold its pieces.

DeepSpeed keeps fp32 weights and Adam's moments flat and cut up, differently under each ZeRO stage and number of
processes. Saved by name they fit any of them, and need no pickle: a run goes on under another number of processes or
another stage, and on the same layout bit for bit, since gathering and cutting up move numbers and compute nothing.

An 8-bit optimizer packs its moments in blocks of what one process holds: they are saved as they are, for that layout.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["weights", "exp_avg", "exp_avg_sq"]
MOMENTS: tuple[Kind, ...] = ("exp_avg", "exp_avg_sq")
"""Adam's names for its two moments."""

KINDS: tuple[Kind, ...] = ("weights", *MOMENTS)

Read = Callable[[Kind, str], Tensor]
"""The saved tensor of a kind and a parameter's name."""

FLAT = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
"""Where DeepSpeed's optimizers keep this process's flat fp32 weights: stage 3, stages 1 and 2, bf16 without gradients
cut up. The fp32 engine of stage 0 has none: it steps the parameters themselves."""


def trained(engine: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that learn, tied ones once."""
    return ((name, p) for name, p in engine.module.named_parameters() if p.requires_grad)


def gathered(engine: Any, kind: Kind, *, keep: bool) -> dict[str, Tensor]:
    """Name → whole fp32 tensor on the CPU. Every process must call it; only those that `keep` get the tensors."""
    whole = {}
    _link_moments(engine)
    for name, parameter in trained(engine):
        value = _whole(engine, parameter, kind)
        if keep:
            whole[name] = value.detach().cpu().contiguous()
    return whole


def packs_moments(engine: Any) -> bool:
    """Whether an optimizer that has made a step keeps something else than Adam's moments in fp32."""
    return any(state and MOMENTS[0] not in state for state in engine.basic_optimizer.state.values())


def own_pieces(engine: Any) -> dict[str, Tensor]:
    """The optimizer's state as this process holds it."""
    return {
        f"{number}.{key}": torch.as_tensor(value).detach().cpu().clone()
        for number, flat in enumerate(_flat_weights(engine))
        for key, value in engine.basic_optimizer.state[flat].items()
    }


def restore_pieces(engine: Any, pieces: Mapping[str, Tensor]) -> None:
    """Give the optimizer of a fresh engine what this process had saved."""
    flats = _flat_weights(engine)
    for name, value in pieces.items():
        number, _, key = name.partition(".")
        flat = flats[int(number)]
        engine.basic_optimizer.state[flat][key] = value.item() if key == "step" else value.to(flat.device)


def restore_weights(engine: Any, read: Read) -> None:
    """Give a fresh engine its weights. Every process must call it, and reads the same."""
    from deepspeed import zero  # late, here and below: see `start_accelerator`
    from deepspeed.utils import safe_set_full_fp32_param

    for name, parameter in trained(engine):
        value = read("weights", name)
        with zero.GatheredParameters([parameter], modifier_rank=0, enabled=hasattr(parameter, "ds_id")):
            parameter.data.copy_(value)
        safe_set_full_fp32_param(parameter, value)


def restore_moments(engine: Any, read: Read, step: int) -> None:
    """Give a fresh engine the moments after `step` steps. Every process must call it, and reads the same."""
    from deepspeed.utils import safe_set_full_optimizer_state

    _make_moments(engine, step)
    _link_moments(engine)
    for kind in MOMENTS:
        for name, parameter in trained(engine):
            value = read(kind, name)
            if _is_spread(parameter):
                safe_set_full_optimizer_state(parameter, value, kind)
            else:
                engine.basic_optimizer.state[parameter][kind].copy_(value)


def _whole(engine: Any, parameter: nn.Parameter, kind: Kind) -> Tensor:
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    value: Tensor | None
    if _is_spread(parameter):
        weights = kind == "weights"
        value = safe_get_full_fp32_param(parameter) if weights else safe_get_full_optimizer_state(parameter, kind)
    else:
        value = parameter if kind == "weights" else engine.basic_optimizer.state[parameter].get(kind)
    # A parameter that never had a gradient has no moments yet.
    return torch.zeros_like(parameter) if value is None else value


def _is_spread(parameter: nn.Parameter) -> bool:
    """The engine keeps its fp32 values apart from the parameter; otherwise they are the parameter."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def _make_moments(engine: Any, step: int) -> None:
    """Adam makes its moments at the first step; here there must be places for them before."""
    for flat in _flat_weights(engine):
        # DeepSpeed's own Adam counts with an integer, torch's with a tensor.
        by_torch = isinstance(engine.basic_optimizer, torch.optim.AdamW)
        state: dict[str, Any] = {"step": torch.tensor(float(step)) if by_torch else step}
        engine.basic_optimizer.state[flat] = state | {kind: torch.zeros_like(flat) for kind in MOMENTS}


def _link_moments(engine: Any) -> None:
    """Tell each parameter where its moments are. DeepSpeed does so after it has stepped the first group of parameters,
    when those of the second do not exist yet."""
    flats = _flat_weights(engine)
    for _, parameter in trained(engine):
        fragment = getattr(parameter, "_hp_mapping", None)  # None, too, where another process has all of it
        if fragment is not None:
            flat = flats[fragment.param_group_index]
            fragment.set_optim_state_fragment(flat, engine.basic_optimizer.state[flat])


def _flat_weights(engine: Any) -> list[Tensor]:
    for place in FLAT:
        if hasattr(engine.optimizer, place):
            return list(getattr(engine.optimizer, place))
    return [parameter for _, parameter in trained(engine)]
