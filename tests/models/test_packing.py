"""Rows that share a line see no more than they would alone, in every model that is packed."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from dudi_kit.data.batches import Batch, Sharing, join, pack
from dudi_kit.models.packing import PACKS, sharing_of
from tests.reading import response_logits

VOCABULARY, PAD = 60, 7
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
    "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SPARSE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
WINDOW = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
ITS_OWN: dict[str, dict[str, Any]] = {
    "qwen2_moe": SPARSE | {"shared_expert_intermediate_size": 16},
    "qwen3_moe": SPARSE,
    "gemma2": WINDOW,
    "gemma3_text": WINDOW,
    "cohere2": WINDOW,
    "exaone4": WINDOW,
    "mistral": {"sliding_window": 6},
    "phi3": {"sliding_window": 6},
    "starcoder2": {"sliding_window": 6},
}

PROMPTS = [[3, 1, 4], [5] * 20, [9], [3, 1, 4], [9, PAD, 2, 6, 5, 3, 5, 8, 9], [5] * 20, [3, 1, 4]]
RESPONSES = [[1, 2, 3, 4, PAD], [PAD], list(range(20, 50)), [40], [], [2, 3], [1, 2, 8]]
"""Of rows that share a prompt, some begin alike."""


def model_of(kind: str, attention: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPE, **ITS_OWN.get(kind, {}))
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def alone_logits(model: Any) -> Tensor:
    return torch.cat([
        model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
        if response
    ])  # fmt: skip


def apart(model: Any, batch: Batch) -> tuple[float, float]:
    """The largest difference of a logit, and of a gradient as a share of its tensor's largest."""
    found = []
    for logits_NV in (response_logits(model, batch), alone_logits(model)):
        model.zero_grad()
        logits_NV.double().logsumexp(-1).sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((logits_NV.detach(), gradients))
    (mine, my_gradients), (theirs, their_gradients) = found
    shares = [
        ((my_gradients[name] - g).abs().max() / g.abs().max().clamp(min=1e-3)).item()
        for name, g in their_gradients.items()
    ]
    return (mine - theirs).abs().max().item(), max(shares)


WAYS = [(kind, attention) for kind in sorted(PACKS) for attention in ("eager", "sdpa")]
WAYS.remove(("gemma2", "sdpa"))  # which caps its scores


@pytest.mark.parametrize(("kind", "attention"), WAYS)
def test_a_packed_row_says_and_teaches_what_it_would_alone(kind, attention):
    logits, gradients = apart(model_of(kind, attention), pack(PROMPTS, RESPONSES, pad_id=PAD, multiple=8))
    assert logits < 2e-5
    assert gradients < 2e-5


@pytest.mark.parametrize("make", [join, pack])
@pytest.mark.parametrize(("kind", "attention"), WAYS)
def test_a_row_that_shares_its_prompt_says_and_teaches_what_it_would_alone(kind, attention, make):
    model = model_of(kind, attention)
    sharing = sharing_of(model.config)
    assert sharing is not None
    assert sharing == (32, getattr(model.config, "sliding_window", None))
    model.config.sliding_window = 60  # longer than any row; what a window does to shorter ones, other tests say
    batch = make(PROMPTS, RESPONSES, pad_id=PAD, multiple=8, sharing=Sharing(10_000, 60))
    assert batch.sees() is not None
    assert len(batch.input_ids_LT) == (4 if make is join else 3)
    logits, gradients = apart(model, batch)
    assert logits < 2e-5
    assert gradients < 2e-5


def test_a_row_that_is_longer_than_a_window_shares_nothing():
    longest = max(len(prompt) + len(response) for prompt, response in zip(PROMPTS, RESPONSES, strict=True))
    for window, shares in ((longest, True), (longest - 1, False)):
        batch = join(PROMPTS, RESPONSES, pad_id=PAD, sharing=Sharing(10_000, window))
        assert (batch.sees() is not None) is shares


@pytest.mark.parametrize("kind", ["lfm2", "bloom"])
def test_a_model_that_carries_more_than_attention_does_leaks(kind):
    """Or it could be packed as well, and its rows share their prompts."""
    config = {"lfm2": {"layer_types": ["conv", "full_attention"]}, "bloom": {"n_layer": 2, "n_head": 4}}[kind]
    torch.manual_seed(0)
    shape = {name: value for name, value in SHAPE.items() if name not in config}
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **config)).eval()
    logits, _ = apart(model, pack(PROMPTS, RESPONSES, pad_id=PAD, multiple=8))
    assert logits > 1e-3
    assert sharing_of(model.config) is None


def test_attention_that_takes_no_mask_of_ours_shares_nothing():
    config = AutoConfig.for_model("llama", **SHAPE)
    assert sharing_of(config) is not None
    config._attn_implementation = "flash_attention_2"
    assert sharing_of(config) is None


def test_packed_blocks_are_made_only_where_fewer_lines_are_filled_with_them():
    """Of long responses behind short prompts each block makes all lines longer; packed rows had a mask anyway."""
    prompts, responses = [[n] for n in (1, 2, 3)] * 2, [[9] * length for length in (20, 20, 3, 20, 20, 3)]
    batch = pack(prompts, responses, pad_id=PAD, multiple=1, sharing=Sharing(4, None))
    assert batch.input_ids_LT.shape == (5, 21)
    assert batch.sees() is None
    wide = join(prompts, responses, pad_id=PAD, multiple=1, sharing=Sharing(10_000, None))
    assert wide.input_ids_LT.shape == (3, 41)


def test_a_mask_of_half_precision_is_taken_too():
    model = model_of("qwen3", "sdpa").to(torch.bfloat16)
    batch = join(PROMPTS, RESPONSES, pad_id=PAD, sharing=Sharing(10_000, None))
    with torch.no_grad():
        apart_NV, shared_NV = alone_logits(model), response_logits(model, batch)
    assert shared_NV.dtype == torch.bfloat16
    assert (apart_NV - shared_NV).abs().max() < 0.05 * apart_NV.abs().max()


@pytest.mark.parametrize("kind", ["qwen2_moe", "qwen3_moe"])
def test_experts_that_would_tell_how_they_are_loaded_are_not_asked(kind):
    """transformers' balance of a mixture of experts takes no such mask."""
    model = model_of(kind, "sdpa")
    batch = join(PROMPTS, RESPONSES, pad_id=PAD, sharing=Sharing(10_000, None))
    with torch.no_grad():
        expected_NV = response_logits(model, batch)
        model.config.output_router_logits = True
        assert torch.equal(response_logits(model, batch), expected_NV)
