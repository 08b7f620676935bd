"""Adapters: what is trained beside frozen weights, by PEFT, inside the student's own modules.

The student stays a transformers model with the names and the forward pass of its class; PEFT's layers sit where its
linear layers were. So generation, DeepSpeed and `models.reading` know nothing of adapters.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from dudi_kit.models.loading import freeze, keep_layout
from dudi_kit.models.targets import adapted_layers
from dudi_kit.recipe.schema.adapters import Lora

NAME = "default"
"""What PEFT calls the only adapter of a model."""

FOLDER = "adapter"
"""Of the adapter alone, inside a model folder."""


def adapt(model: PreTrainedModel, adapter: Lora, *, seed: int, base: str | None, revision: str | None = None) -> None:
    """Freeze the model and put an adapter beside its linear layers, in place; it changes nothing before its first step.

    base, revision: where the frozen weights come from, for whoever loads the adapter alone.
    ModelError: `targets` names no linear layer.
    """
    set_seed(seed)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # PEFT only divides it
        lora_dropout=adapter.dropout,
        target_modules=list(adapted_layers(model, adapter)),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        revision=revision,
    )
    inject_adapter_in_model(config, freeze(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    keep_layout(model, lambda layer: True)


def has_adapter(model: nn.Module) -> bool:
    """Whether some layer has an adapter."""
    return next(_layers(model), None) is not None


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """Inside, the model is what it was before it was adapted, without dropout."""
    was_training = model.training
    model.eval()
    for _, layer in _layers(model):
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for _, layer in _layers(model):
            layer.enable_adapters(True)
        model.train(was_training)


class Unadapted(nn.Module):
    """The frozen model under an adapter: π_ref of a student whose adapter was nothing at the start. Takes no memory."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.of = (model,)  # in a tuple: no part of this module, which has no weights of its own
        self.eval()

    @property
    def module(self) -> nn.Module:
        """The student, whose forward pass says what it takes."""
        return self.of[0]

    def forward(self, **inputs: Any) -> Any:
        """As the model's own."""
        with without_adapter(self.module):
            return self.module(**inputs)


def _layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


@torch.no_grad()
def merged(model: PreTrainedModel, state: Mapping[str, Tensor]) -> PreTrainedModel:
    """An ordinary model of the same class: each W with alpha/rank·B·A added in fp32; packed weights are unpacked first.

    state: the model's state dict, gathered from all processes. The model itself stays as it is.
    """
    weights = {name.replace(".base_layer.", "."): tensor for name, tensor in state.items()}
    for name, layer in _layers(model):
        weight = weights[f"{name}.weight"]
        if not weight.is_floating_point():
            weight = dequantize_module_weight(layer.get_base_layer())
        a, b = (state[f"{name}.lora_{part}.{NAME}.weight"] for part in "AB")
        weights[f"{name}.weight"] = (weight.float() + layer.scaling[NAME] * (b.float() @ a.float())).to(a.dtype)
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    # What is left out here are the adapter's own matrices and the scales of packed weights.
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()}, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def save_adapter(model: PreTrainedModel, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write the adapter alone, as PEFT reads it: `PeftModel.from_pretrained(base, folder)`."""
    folder.mkdir(parents=True, exist_ok=True)
    own = get_peft_model_state_dict(model, state_dict=dict(state))
    save_file(
        {f"base_model.model.{name}": tensor.contiguous().cpu() for name, tensor in own.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    model.peft_config[NAME].save_pretrained(str(folder))


def save_model(model: PreTrainedModel, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a student as a transformers folder: merged where it has an adapter, which lies beside it too.

    state: values to be saved in place of the model's own, by name; without an adapter, all that is to be saved.
    """
    if not has_adapter(model):
        model.save_pretrained(folder, state_dict=None if state is None else dict(state))
        return
    whole = {**model.state_dict(), **(state or {})}
    merged(model, whole).save_pretrained(folder)
    save_adapter(model, whole, folder / FOLDER)
