"""Our loop inside `generate` says what transformers' own would say, and spends nothing on rows that have ended."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    masking_utils,
)

from dudi_kit.models.generation import LEAVE, Stops, continue_prompts

PIECES, MOST = 40, 24
STOPS = Stops((36, 37, 38, 39), 39)  # pad is one of them
BODY = {
    "vocab_size": PIECES, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.4,
    "tie_word_embeddings": False,
}  # fmt: skip
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**BODY)),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **BODY, head_dim=8, query_pre_attn_scalar=8, sliding_window=6,
            layer_types=["sliding_attention", "full_attention"],
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=PIECES, n_embd=16, n_layer=2, n_head=2, n_positions=128, initializer_range=0.4,
            tie_word_embeddings=False,
        )
    ),
    "mamba": lambda: MambaForCausalLM(
        MambaConfig(
            vocab_size=PIECES, hidden_size=16, state_size=4, num_hidden_layers=2, initializer_range=0.4,
            tie_word_embeddings=False,
        )
    ),
    "lfm2": lambda: Lfm2ForCausalLM(
        Lfm2Config(**BODY, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False)
    ),
}  # fmt: skip


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def prompts(number: int = 12) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    lengths = [1 + (7 * i) % 23 for i in range(number)]
    return [torch.randint(PIECES - 4, (length,), generator=generator).tolist() for length in lengths]


def sizes_of(model: Any) -> list[int]:
    """The number of rows of each forward pass from now on."""
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, __, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True)
    return seen


def said_by_transformers(model: Any, asked: list[list[int]]) -> list[list[int]]:
    width = max(map(len, asked))
    ids = torch.tensor([[STOPS.pad_id] * (width - len(row)) + row for row in asked])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in asked])
    out: Tensor = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=MOST,
        eos_token_id=list(STOPS.stop_ids), pad_token_id=STOPS.pad_id,
    )  # fmt: skip
    return [row[width:] for row in out.tolist()]


ALIKE = [[(5 * i + j) % 36 for j in range(32)] for i in range(12)]
"""Prompts that need no padding."""


@pytest.mark.parametrize(
    "asked", [prompts(), ALIKE, [row[:20] for row in ALIKE]], ids=["of all lengths", "not padded", "padded alike"]
)
@pytest.mark.parametrize("model", list(MODELS), indirect=True)
def test_what_is_said_is_what_transformers_would_say(model, asked):
    theirs = said_by_transformers(model, asked)
    ours = continue_prompts(model, asked, STOPS, max_new_tokens=MOST)
    assert len({len(said.ids) for said in ours}) > 2, "rows end at different times"
    for said, row in zip(ours, theirs, strict=True):
        assert said.ids == row[: len(said.ids)]
        assert set(row[len(said.ids) :]) <= {STOPS.pad_id}
        assert said.ended == (said.ids[-1] in STOPS.stop_ids)


@pytest.mark.parametrize("asked", [prompts(), ALIKE], ids=["padded", "not padded"])
@pytest.mark.parametrize("model", ["llama", "gemma3", "gpt2"], indirect=True)
def test_transformers_is_not_asked_whether_prompts_are_padded(monkeypatch, model, asked):
    real = masking_utils._ignore_causal_mask_sdpa

    def looks(padding_BT: Tensor | None, *sizes: Any) -> bool:
        assert padding_BT is None, "it is read off the device"
        return real(padding_BT, *sizes)

    monkeypatch.setattr(masking_utils, "_ignore_causal_mask_sdpa", looks)
    own = model.config._attn_implementation
    assert continue_prompts(model, asked, STOPS, max_new_tokens=MOST)
    assert model.config._attn_implementation == own == "sdpa"


@pytest.mark.parametrize("model", ["llama", "gemma3", "gpt2"], indirect=True)
def test_rows_that_have_ended_leave_the_batch(model):
    sizes = sizes_of(model)
    said = continue_prompts(model, prompts(), STOPS, max_new_tokens=MOST)
    assert len(sizes) == max(len(one.ids) for one in said)
    assert len(set(sizes)) > 2
    for position, size in enumerate(sizes):
        still_open = sum(len(one.ids) > position for one in said)
        assert still_open <= size
        assert still_open > (1 - LEAVE) * size or size == still_open


@pytest.mark.parametrize("model", ["mamba", "lfm2"], indirect=True)
def test_rows_with_a_recurrent_state_stay(model):
    sizes = sizes_of(model)
    continue_prompts(model, prompts(), STOPS, max_new_tokens=MOST)
    assert set(sizes) == {12}


@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_the_choice_is_told_which_prompts_are_left(model):
    told: list[list[int]] = []

    def choose(logits_bV: Tensor, row_b: Tensor, position: int) -> Tensor:
        """Prompt 3 ends first, then 2, and so on."""
        assert len(logits_bV) == len(row_b)
        told.append(row_b.tolist())
        return torch.where(row_b >= 3 - position, 37, row_b)

    said = continue_prompts(model, prompts(4), STOPS, max_new_tokens=MOST, choose=choose)
    assert told == [[0, 1, 2, 3], [0, 1, 2], [0, 1], [0]]
    assert [one.ids for one in said] == [[0, 0, 0, 37], [1, 1, 37], [2, 37], [37]]
