"""Where a frozen model's weights lie changes nothing of what it says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dudi_kit.data.batches import join
from dudi_kit.models.generation import Stops, continue_prompts
from dudi_kit.models.loading import _offload, freeze, load_model, require_frozen
from tests.reading import frozen_response_logits

BATCH = join([[5, 6, 7], [8, 9]], [[10, 11], [12, 13, 14]], pad_id=0)
BIG_ENOUGH = "64MiB"
TOO_SMALL = "1MiB"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.1,
        attention_dropout=0.5,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("teacher")
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def teacher(folder: Path, dtype: str = "bf16", **options: Any) -> Any:
    return freeze(load_model(str(folder), who="teacher.model", dtype=dtype, **options))


def bytes_held(model: Any) -> int:
    """Bytes of the weights that are there; the others are fetched when it is their turn."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.device.type != "meta")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "placed",
    [
        {"placement": "offload", "device_memory": TOO_SMALL},
        {"placement": "offload", "device_memory": BIG_ENOUGH},
        {"placement": "sharded"},
    ],
    ids=["from disk", "whole", "spread"],
)
def test_it_says_the_same_wherever_it_lies(folder, dtype, placed):
    here, there = teacher(folder, dtype), teacher(folder, dtype, **placed)
    assert torch.equal(frozen_response_logits(here, BATCH), frozen_response_logits(there, BATCH))
    stops = Stops((0,), 0)
    said = [continue_prompts(model, [[5, 6, 7], [8, 9]], stops, max_new_tokens=5) for model in (here, there)]
    assert said[0] == said[1]
    require_frozen(there, "the teacher")


def test_an_offloaded_teacher_holds_no_more_than_it_may(folder):
    whole, part = teacher(folder, "fp32"), teacher(folder, "fp32", placement="offload", device_memory=TOO_SMALL)
    assert bytes_held(whole) > 2**20
    for _ in range(2):  # nor after it was asked
        assert 0 < bytes_held(part) <= 2**20
        frozen_response_logits(part, BATCH)


def test_on_a_gpu_the_rest_lies_in_main_memory_not_on_disk():
    """No GPU is here: only what accelerate is told."""
    told = _offload(torch.device("cuda", 1), "20GiB")
    assert told["device_map"] == "sequential"
    assert told["max_memory"] == {1: "20GiB", "cpu": 2**50}


@pytest.mark.parametrize("spoil", [lambda model: model.train(), lambda model: model.lm_head.requires_grad_(True)])
def test_a_teacher_that_would_learn_or_drop_out_is_found(folder, spoil):
    model = teacher(folder)
    require_frozen(model, "the teacher")
    spoil(model)
    with pytest.raises(AssertionError, match="the teacher is frozen, and"):
        require_frozen(model, "the teacher")
