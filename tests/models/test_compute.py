"""Activation checkpointing and compiled layers: other ways to the same numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, Qwen3Config

from dudi_kit.data.batches import join
from dudi_kit.errors import EnvironmentLack
from dudi_kit.models.adapters import adapt
from dudi_kit.models.compiling import compile_layers, require_compiler
from dudi_kit.models.generation import Stops, continue_prompts
from dudi_kit.recipe.schema.adapters import Lora
from tests.reading import response_logits

SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
}  # fmt: skip
BATCH = join([[5, 6, 7], [8, 9]], [[10, 11], [12, 13, 14]], pad_id=0)


def student(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).train()


def learned(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients."""
    model.zero_grad()
    loss = -response_logits(model, BATCH).log_softmax(-1)[:, 3].mean()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("adapter", [None, Lora(rank=2)], ids=["whole", "adapter"])
@pytest.mark.parametrize(
    "config", [LlamaConfig(**SHAPE), Qwen3Config(**SHAPE), Gemma3TextConfig(**SHAPE)], ids=lambda c: c.model_type
)
def test_checkpointing_changes_no_gradient_and_keeps_less(config, adapter):
    model = student(config)
    if adapter:
        adapt(model, adapter, seed=0, base=None)
        model.train()
    loss, gradients = learned(model)
    whole = kept_for_backward(model)
    model.activation_checkpointing_enable()
    again, recomputed = learned(model)
    assert torch.equal(loss, again)
    assert gradients.keys() == recomputed.keys()
    assert all(torch.equal(gradients[name], recomputed[name]) for name in gradients)
    assert kept_for_backward(model) < 0.5 * whole


def kept_for_backward(model: Any) -> int:
    """Elements that the layers' forward pass keeps, weights included."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.get_decoder()(BATCH.input_ids_LT, use_cache=False)
    return sum(kept.values())


def test_compiled_layers_learn_the_same_and_are_not_compiled_for_sampling():
    model = student(LlamaConfig(**SHAPE | {"num_hidden_layers": 1}))
    loss, gradients = learned(model)
    compile_layers(model, backend="eager")  # what is captured: machine code takes half a minute
    again, compiled = learned(model)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    assert (loss - again).abs() < 1e-6
    assert all(torch.allclose(gradients[name], compiled[name], atol=1e-6) for name in gradients)
    continue_prompts(model, [[1, 2, 3]], Stops((0,), 0), max_new_tokens=8)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_a_machine_without_a_compiler_is_told_before_weights_are_loaded(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EnvironmentLack, match=r"training\.compile needs a C\+\+ compiler.*no-such-compiler"):
        require_compiler()
