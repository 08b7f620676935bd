"""Which linear layers of a model get an adapter, and how large it is; known before weights are, and without PEFT."""

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from dudi_kit.errors import ModelError
from dudi_kit.recipe.schema.adapters import Lora


def adapted_layers(model: PreTrainedModel, adapter: Lora) -> dict[str, nn.Linear]:
    """The linear layers that get an adapter, by name.

    ModelError: a target is no linear layer; says which ones there are.
    """
    head = model.get_output_embeddings()
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    if adapter.targets is None:
        return linear
    for target in adapter.targets:
        if not any(_is_named(name, target) for name in linear):
            known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
            raise ModelError(
                f"student.adapter.targets: {target!r} is no linear layer of a {model.config.model_type} model, or "
                f"it is the output head, which gets no adapter. It has: {known}."
            )
    return {name: m for name, m in linear.items() if any(_is_named(name, target) for target in adapter.targets)}


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def count_trained(config: PreTrainedConfig, adapter: Lora) -> int:
    """Parameters of the adapter on a model with this configuration; no memory is taken. ModelError: see above."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers = adapted_layers(model, adapter).values()
    return sum(adapter.rank * (layer.in_features + layer.out_features) for layer in layers)
