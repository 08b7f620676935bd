"""Adapters: only they learn, they are nothing at the start, and merged they say what they said live."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Qwen3Config

from dudi_kit.data.batches import join
from dudi_kit.errors import ModelError
from dudi_kit.models.adapters import Unadapted, adapt, save_model
from dudi_kit.models.generation import Stops, continue_prompts
from dudi_kit.models.loading import freeze, load_model, require_frozen
from dudi_kit.models.reference import frozen_copy, refresh
from dudi_kit.models.targets import adapted_layers, count_trained
from dudi_kit.recipe.schema.adapters import Lora, Quantization
from tests.reading import frozen_response_logits, response_logits

SHAPE = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
}  # fmt: skip
CONFIG = LlamaConfig(**SHAPE, tie_word_embeddings=False, initializer_range=0.1)
BATCH = join([[5, 6, 7], [8, 9]], [[10, 11], [12, 13, 14]], pad_id=0)
KINDS: list[Quantization] = ["none", "int8", "nf4"]
FARTHEST = {"none": 1e-5, "int8": 0.1, "nf4": 0.05}
"""Logits (of about 3) merged and live: in fp32 the order of sums; in bf16 that the sum of weights is rounded, and that
int8 layers round what they read, too."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    LlamaForCausalLM(CONFIG).save_pretrained(folder)
    return folder


def adapted(base: Path, *, trained: bool = True, **settings: Any) -> Any:
    """A student with an adapter that has learned something."""
    adapter = Lora(**{"rank": 4, "alpha": 6.0, **settings})
    dtype = "fp32" if adapter.quantization == "none" else "bf16"
    model = load_model(str(base), who="student.model", dtype=dtype, quantization=adapter.quantization)
    adapt(model, adapter, seed=3, base=str(base))
    if trained:
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.05)
    for parameter in model.parameters():  # as the engine does
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(next(model.parameters()).dtype)
    return model.train()


def gradients(model: Any) -> dict[str, Tensor]:
    model.zero_grad()
    response_logits(model, BATCH).float().log_softmax(-1)[:, 7].sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_it_changes_nothing_at_the_start_and_learns_alone(base, kind):
    untouched = load_model(str(base), who="student", dtype="fp32" if kind == "none" else "bf16", quantization=kind)
    model = adapted(base, trained=False, quantization=kind)
    apart = frozen_response_logits(model.eval(), BATCH) - frozen_response_logits(freeze(untouched), BATCH)
    assert apart.abs().max() <= (FARTHEST[kind] if kind == "nf4" else 0)  # nf4 is laid out, and summed, otherwise
    found = gradients(model.train())
    assert found.keys() == {name for name, _ in model.named_parameters() if "lora_" in name}
    assert all(found[name].abs().sum() > 0 for name in found if "lora_B" in name)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_merged_says_what_it_said_live_and_peft_reads_the_adapter_alone(base, kind, tmp_path):
    model = adapted(base, quantization=kind)
    before = copy.deepcopy(model.state_dict())
    save_model(model, tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    live = frozen_response_logits(model.eval(), BATCH).float()
    merged = load_model(str(tmp_path), who="student", dtype="fp32" if kind == "none" else "bf16")
    assert not hasattr(merged.config, "quantization_config")
    said = frozen_response_logits(merged, BATCH).float()
    assert (said - live).abs().max() < FARTHEST[kind]
    assert (frozen_response_logits(Unadapted(model), BATCH).float() - live).abs().max() > 0.2
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter"))
    assert alone.peft_config["default"].base_model_name_or_path == str(base)
    if kind == "none":
        assert torch.allclose(alone.eval()(BATCH.input_ids_LT).logits, model(BATCH.input_ids_LT).logits, atol=1e-5)


def test_tied_embeddings_stay_tied_when_merged(tmp_path):
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)).save_pretrained(tmp_path / "base")
    save_model(adapted(tmp_path / "base"), tmp_path / "final")
    final = load_model(str(tmp_path / "final"), who="student", dtype="fp32")
    assert final.lm_head.weight is final.model.embed_tokens.weight


@pytest.mark.parametrize("kind", KINDS)
def test_asking_without_gradient_in_between_takes_no_gradient_away(base, kind):
    """On a CPU with AVX512-BF16, bitsandbytes lays nf4 weights out anew when they are first used without gradient, and
    from then on the layer's input gets none."""
    model = adapted(base, quantization=kind)
    before = gradients(model)
    continue_prompts(model, [[5, 6, 7], [8, 9]], Stops((0,), 0), max_new_tokens=4)
    frozen_response_logits(Unadapted(model), BATCH)
    after = gradients(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_student_without_its_adapter_is_the_reference_of_a_copy(base):
    start = adapted(base, trained=False)
    copied = frozen_copy(start, torch.float32)
    model = adapted(base, dropout=0.5)
    itself = Unadapted(model)
    require_frozen(itself, "the reference")
    assert torch.equal(frozen_response_logits(itself, BATCH), frozen_response_logits(copied, BATCH))
    assert model.training
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(gradients(model))


@pytest.mark.parametrize("kind", KINDS)
def test_a_refreshed_reference_is_a_copy_that_takes_the_adapter_over(base, kind):
    model = adapted(base, quantization=kind)
    reference = frozen_copy(adapted(base, trained=False, quantization=kind), next(model.parameters()).dtype)
    require_frozen(reference, "the reference")
    refresh(reference, model.state_dict())
    assert torch.equal(frozen_response_logits(reference, BATCH), frozen_response_logits(model.eval(), BATCH))


def test_dropout_is_off_while_the_student_samples_and_on_while_it_learns(base):
    model, without = adapted(base, dropout=0.9), adapted(base)
    prompts, stops = [[5, 6, 7], [8, 9]], Stops((0,), 0)
    said = [continue_prompts(m, prompts, stops, max_new_tokens=12) for m in (model, model, without)]
    assert said[0] == said[1] == said[2]
    with torch.no_grad():
        learning = [response_logits(model, BATCH) for _ in range(2)]
    assert not torch.equal(*learning)


def test_the_same_seed_makes_the_same_adapter(base):
    one, other = (adapted(base, trained=False).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


# Targets


@pytest.mark.parametrize(
    "config", [CONFIG, Qwen3Config(**SHAPE), Gemma3TextConfig(**SHAPE)], ids=lambda c: c.model_type
)
@pytest.mark.parametrize("targets", [None, ["q_proj", "down_proj"], ["layers.1.mlp.up_proj"]])
def test_the_plan_counts_what_peft_trains(config, targets):
    adapter = Lora(rank=3, targets=targets)
    model = AutoModelForCausalLM.from_config(config)
    layers = adapted_layers(model, adapter)
    assert len(layers) == {None: 14, 2: 4, 1: 1}[targets and len(targets)]
    adapt(model, adapter, seed=0, base=None)
    assert count_trained(config, adapter) == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("target", ["c_attn", "lm_head", "proj", "embed_tokens"])
def test_a_target_that_is_no_linear_layer_is_refused_with_those_that_are(target):
    with pytest.raises(ModelError) as caught:
        count_trained(CONFIG, Lora(targets=["q_proj", target]))
    said = str(caught.value)
    assert said.startswith(f"student.adapter.targets: {target!r} is no linear layer of a llama model")
    assert said.endswith("It has: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj.")
