"""What a batch says at response positions is what each row says alone, without any padding."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    Qwen2Config,
    Qwen3Config,
    masking_utils,
)

from dudi_kit.data.batches import Batch, Sharing, join, pack
from dudi_kit.models.head_form import head_form
from dudi_kit.models.loading import with_contiguous_head
from dudi_kit.models.reading import FEW, Places, predictions, response_nats
from tests.reading import frozen_response_logits, response_logits

VOCABULARY, PAD = 60, 7
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
    "initializer_range": 0.3,
}  # fmt: skip

CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE),
    "gemma3": Gemma3TextConfig(**SHAPE),
    # every other layer sees 6 tokens only: padding must not take their places
    "gemma3 with a short window": Gemma3TextConfig(
        **SHAPE, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "gemma3 with capped logits": Gemma3TextConfig(**SHAPE, final_logit_softcapping=2.0),
    # learned positions: a shift by the padding would show, which rotary ones hide
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3),
}

PROMPTS = [[3, 1, 4], [5] * 20, [PAD], [9, PAD, 2, 6, 5, 3, 5, 8, 9], [11, 12]]
RESPONSES = [[1, 2, 3, 4, PAD], [PAD], list(range(20, 50)), [40], []]
"""Of all lengths; the pad id is an ordinary piece, too. One response is empty."""


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name]).eval()


def batch() -> Batch:
    return join(PROMPTS, RESPONSES, pad_id=PAD)


def alone(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """The token at place t is predicted at t−1."""
    logits: Tensor = model(input_ids=torch.tensor([prompt + response])).logits[0]
    return logits[len(prompt) - 1 : len(prompt) + len(response) - 1]


@pytest.mark.parametrize("few", [0, FEW])
@pytest.mark.parametrize("make", [join, pack])
@pytest.mark.parametrize("name", CONFIGS)
def test_response_logits_equal_a_plain_forward_of_each_row_alone(name, make, few):
    model = model_of(name)
    with torch.no_grad():
        logits_NV = response_logits(model, make(PROMPTS, RESPONSES, pad_id=PAD), few=few)
        expected_NV = torch.cat([alone(model, *row) for row in zip(PROMPTS, RESPONSES, strict=True)])
    torch.testing.assert_close(logits_NV, expected_NV, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3),
        FalconConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True),
        Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"]),
        MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, initializer_range=0.3),
    ],
    ids=lambda config: str(config.model_type),
)
def test_distances_convolutions_and_states_do_not_know_of_padding_either(config):
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        expected_NV = torch.cat([alone(model, *row) for row in zip(PROMPTS, RESPONSES, strict=True)])
    for few in (0, FEW):
        said_NV = frozen_response_logits(model, batch(), few=few)
        torch.testing.assert_close(said_NV, expected_NV, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_response_costs_is_what_it_costs_alone(name):
    model = model_of(name)
    with torch.no_grad():
        expected = [
            -alone(model, prompt, response).log_softmax(-1)[range(len(response)), response].sum().item()
            for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
        ]
    assert response_nats(model, batch()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_stands_on_the_padding_changes_nothing(name):
    model = model_of(name)
    one, other = (frozen_response_logits(model, join(PROMPTS, RESPONSES, pad_id=pad)) for pad in (PAD, 55))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("few", [0, FEW])
def test_attention_is_told_to_look_back_and_given_no_mask(few, monkeypatch):
    """With one, it takes slower kernels and keeps B·T² of it in each layer."""
    asked: list[tuple[Any, bool]] = []
    own = functional.scaled_dot_product_attention

    def seen(*heads: Tensor, attn_mask: Any = None, is_causal: bool = False, **options: Any) -> Tensor:
        asked.append((attn_mask, is_causal))
        return own(*heads, attn_mask=attn_mask, is_causal=is_causal, **options)

    model = model_of("llama")
    head_form(model)  # tries the model once
    monkeypatch.setattr(functional, "scaled_dot_product_attention", seen)
    response_logits(model, batch(), few=few)
    assert asked == [(None, True)] * 2


@pytest.mark.parametrize("few", [0, FEW])
@pytest.mark.parametrize(("name", "looks"), [("llama", 0), ("gemma3", 0), ("gemma3 with a short window", 2)])
def test_positions_are_looked_into_only_where_a_mask_is_needed(name, looks, few, monkeypatch):
    """It is a wait for the device, in every pass. transformers looks once for each kind of layer."""
    looked: list[Tensor] = []
    own = masking_utils.find_packed_sequence_indices

    def seen(position_ids: Tensor) -> Any:
        looked.append(position_ids)
        return own(position_ids)

    model = model_of(name)
    head_form(model)
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", seen)
    response_logits(model, batch(), few=few)
    assert len(looked) == looks
    assert model.config._attn_implementation == "sdpa"
    response_logits(model, join([[3, 1, 4]] * 2, [[5], [6, 7]], pad_id=PAD, sharing=Sharing(10_000, None)), few=few)
    assert len(looked) == looks
    response_logits(model, pack([[3, 1], [4]], [[5], []], pad_id=PAD), few=few)
    assert len(looked) > looks


def test_what_a_checkpointed_layer_computes_again_it_computes_in_the_same_way():
    model, batch_ = model_of("llama").train(), batch()
    found = []
    for recomputes in (False, True):
        if recomputes:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        response_logits(model, batch_).logsumexp(-1).sum().backward()
        found.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_row_may_fill_a_learned_table_of_positions_to_its_end():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=41)
    model = AutoModelForCausalLM.from_config(config).eval()
    filled = join([[3, 1], [5] * 40], [[4], [6]], pad_id=PAD)
    assert filled.input_ids_LT.shape == (2, 48)
    with torch.no_grad():
        expected_NV = torch.cat([alone(model, [3, 1], [4]), alone(model, [5] * 40, [6])])
    for few in (0, FEW):
        torch.testing.assert_close(response_logits(model, filled, few=few), expected_NV, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("few", "own"), [(0, 0), (FEW, 3)])
def test_a_model_makes_logits_of_response_tokens_and_no_others(few, own):
    """After a short prompt beside a long one, there are far more columns than response tokens."""
    made: list[int] = []
    model = model_of("llama")
    head_form(model)  # tries the model once
    model.lm_head.register_forward_hook(lambda _, __, out: made.append(out.shape[:-1].numel()))
    frozen_response_logits(model, join([[1], [2] * 100], [[3], [4, 5]], pad_id=PAD), few=few)
    assert made == [own]


def test_a_model_whose_head_is_not_called_says_the_same():
    """It multiplies by the head's weight itself, so that nobody can give it fewer rows."""
    model = model_of("llama")
    expected_NV = frozen_response_logits(model, batch())
    model.lm_head.forward = None

    def forward(input_ids: Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=model.model(input_ids, use_cache=use_cache)[0] @ model.lm_head.weight.T)

    model.forward = forward
    with torch.no_grad(), predictions(model, batch(), places(batch()), few=FEW) as said:
        torch.testing.assert_close(said.rows, expected_NV)


@pytest.mark.parametrize("stage_3", [False, True])
def test_processes_that_share_a_model_out_all_ask_for_hidden_states(stage_3, monkeypatch):
    """Or one of them would gather the head once more than another whose responses are shorter."""
    model = model_of("llama")
    if stage_3:
        monkeypatch.setattr(model.lm_head.weight, "ds_id", 0, raising=False)
    with torch.no_grad(), predictions(model, batch(), places(batch()), few=FEW) as said:
        assert (said.head is not None) == stage_3


def places(batch: Batch) -> Places:
    return Places(*batch.response_mask_BR.nonzero(as_tuple=True))


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_gradients_flow_to_the_student_and_none_is_made_for_a_frozen_one(name):
    model, padded = model_of(name), batch()
    assert response_logits(model, padded).requires_grad
    assert not frozen_response_logits(model, padded).requires_grad
    torch.testing.assert_close(response_logits(model, padded).detach(), frozen_response_logits(model, padded))


def test_predictions_do_not_see_the_token_that_they_predict():
    model = model_of("llama")
    one = join([[3, 1, 4]], [[1, 2, 3]], pad_id=PAD)
    other = join([[3, 1, 4]], [[1, 2, 50]], pad_id=PAD)
    with torch.no_grad():
        torch.testing.assert_close(response_logits(model, one), response_logits(model, other))


class Counting(nn.Module):
    """A model that takes ids only: no positions, no logits_to_keep."""

    def forward(self, input_ids: Tensor, use_cache: bool = True) -> Any:
        assert not use_cache
        return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids, VOCABULARY).float())


def test_a_model_without_positions_and_logits_to_keep_is_read_in_the_same_place():
    padded = join([[3, 1, 4], [5]], [[1, 2], [6, 7, 8]], pad_id=PAD)
    said = response_logits(Counting(), padded).argmax(-1)  # it says the token that it reads: the one before
    assert said.tolist() == [4, 1, 5, 6, 7]


def test_an_engine_around_the_model_is_seen_through():
    class Engine(nn.Module):
        def __init__(self, module: Any) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.module(*args, **kwargs)

    model, padded = model_of("llama"), batch()
    with torch.no_grad():
        torch.testing.assert_close(response_logits(Engine(model), padded), response_logits(model, padded))


def test_logits_keep_the_dtype_of_the_model():
    assert response_logits(model_of("llama").to(torch.bfloat16), batch()).dtype is torch.bfloat16


def test_the_head_is_fed_contiguous_rows_and_says_the_same():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=97, **shape)).eval()
    batch = join([[1, 2, 3], [4]], [[5], [6, 7]], pad_id=0)
    plain = frozen_response_logits(model, batch)
    fed: list[bool] = []
    head = with_contiguous_head(model).lm_head
    head.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0].is_contiguous()))
    assert torch.equal(frozen_response_logits(model, batch), plain)
    assert fed == [True]


@pytest.mark.parametrize(("places", "known"), [({"a": 0, "b": "cpu"}, True), ({"a": 0, "b": 1}, False)])
def test_a_model_that_is_spread_over_gpus_is_asked_for_its_own_logits(places: dict[str, Any], known: bool) -> None:
    """accelerate brings these back to the batch's GPU; hidden states stay on the last layer's."""
    model = model_of("llama")
    model.hf_device_map = places
    assert (head_form(model) is not None) == known
