"""What a model does from its last hidden state to its logits, so that it can be done for some positions at a time.

Known are the head's product with its bias, and the scales and the soft cap of the configuration. Whether that is all is
not believed but tried: the model's own logits of a few tokens, with hidden states made large enough for a cap to show.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dudi_kit.models.head import Head

LARGE = 100.0
"""Largest logit in the trial: far beyond any cap."""

TOLERANCE = 0.02
"""Of the largest logit; two ways of rounding in bf16 differ by less."""


class HeadForm(NamedTuple):
    """See `Head`."""

    scale: float
    cap: float | None


_KNOWN: "WeakKeyDictionary[nn.Module, HeadForm | None]" = WeakKeyDictionary()


def inner(model: Any) -> Any:
    """The model inside an engine, or inside whatever has one as its `module`."""
    return getattr(model, "module", model)


def head_form(model: nn.Module) -> HeadForm | None:
    """How this model's head is computed; None where it is done in a way that is not known here, or lies elsewhere.

    The first call asks the model, whose weights must be there: before they are shared out over processes.
    """
    asked = inner(model)
    if asked not in _KNOWN:
        _KNOWN[asked] = _found(asked)
    return _KNOWN[asked]


@contextmanager
def open_head(model: nn.Module, form: HeadForm) -> Iterator[Head]:
    """The model's head; inside, its weights are whole, also where they are shared out over processes."""
    linear = inner(model).get_output_embeddings()
    with _gathered(linear):
        yield Head(linear.weight, linear.bias, form.scale, form.cap)


def pieces_of(model: nn.Module) -> int:
    """V, of logits."""
    weight = inner(model).get_output_embeddings().weight
    return int(getattr(weight, "ds_shape", weight.shape)[0])


def head_of(model: nn.Module) -> nn.Module | None:
    """The module that makes logits out of hidden states."""
    find = getattr(inner(model), "get_output_embeddings", None)
    found: nn.Module | None = find() if find is not None else None
    return found


def is_shared_out(model: nn.Module) -> bool:
    """Over processes, which then must all ask for the head in one way: each gathers it together with the others."""
    return any(hasattr(p, "ds_id") for p in inner(model).get_output_embeddings().parameters(recurse=False))


@contextmanager
def hidden_states(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, what a forward pass gives to the head: [B, T, H] is added to the list at each."""
    seen: list[Tensor] = []
    hook = inner(model).base_model.register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state))
    try:
        yield seen
    finally:
        hook.remove()


def _gathered(linear: nn.Linear) -> Any:
    """Inside, weights that are shared out over processes are whole; who has gathered them already keeps them so."""
    parameters = list(linear.parameters(recurse=False))
    if not any(hasattr(p, "ds_id") and p.numel() == 0 for p in parameters):
        return nullcontext()
    from deepspeed import zero

    return zero.GatheredParameters(parameters)


def _found(model: Any) -> HeadForm | None:
    linear = head_of(model)
    if type(linear) is not nn.Linear or model.base_model is model or linear.weight.is_meta or _is_spread(model):
        return None
    config = model.config.get_text_config()
    scale = _number(config, "logit_scale") * _number(config, "lm_head_multiplier") / _number(config, "logits_scaling")
    form = HeadForm(scale, getattr(config, "final_logit_softcapping", None))
    return form if _is_true(model, form, linear) else None


def _is_spread(model: Any) -> bool:
    """Its layers lie on several GPUs: hidden states come out on another one than the batch, and maybe the head."""
    places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    return len(places - {"cpu", "disk"}) > 1


def _number(config: Any, name: str) -> float:
    value = getattr(config, name, None)
    return 1.0 if value is None else float(value)


@torch.no_grad()
def _is_true(model: Any, form: HeadForm, linear: nn.Linear) -> bool:
    head = Head(linear.weight, linear.bias, form.scale, form.cap)
    plain = Head(linear.weight, linear.bias)
    said: list[Tensor] = []

    def enlarge(_: nn.Module, __: Any, out: Any) -> Any:
        hidden_BTH = out.last_hidden_state
        hidden_BTH = hidden_BTH * (LARGE / plain.logits(hidden_BTH.flatten(0, 1)).abs().amax().clamp(min=1e-6))
        said.append(hidden_BTH.flatten(0, 1))
        out.last_hidden_state = hidden_BTH
        return out

    was_training = model.training
    model.eval()
    hook = model.base_model.register_forward_hook(enlarge)
    try:
        ids = torch.arange(3, device=linear.weight.device).unsqueeze(0) % len(linear.weight)
        own = model(input_ids=ids, use_cache=False).logits.flatten(0, 1)
    finally:
        hook.remove()
        model.train(was_training)
    ours = head.logits(said[0].to(linear.weight.dtype))
    return own.shape == ours.shape and bool((own - ours).abs().max() <= TOLERANCE * ours.abs().max())
