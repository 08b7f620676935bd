"""Models cut by layers and by pieces: what they give is what the bigger one gives there."""

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from dudi_kit.data.tokenizers import train_tokenizer
from dudi_kit.errors import EnvironmentLack, ModelError
from dudi_kit.models.loading import load_model
from dudi_kit.models.prune import Cut, Lazy, chosen_layers, cut_config, cut_weights, made_by, taken, write_folder

SHAPE = {
    "vocab_size": 90, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 8, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 4, "eos_token_id": [6, 9], "pad_token_id": 6,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "gemma3": Gemma3TextConfig(**SHAPE, sliding_window=4),
    "qwen2": Qwen2Config(**{name: value for name, value in SHAPE.items() if name != "head_dim"}),
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "gpt2": GPT2Config(vocab_size=90, n_embd=16, n_layer=8, n_head=2, bos_token_id=4, eos_token_id=6),
}
ROWS = (4, 6, *range(9, 90, 3))
ALL = tuple(range(8))


@pytest.fixture(params=CONFIGS)
def whole(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[request.param])).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["a b c"], 300)


def refuse() -> Any:
    raise AssertionError("its weights lie in safetensors files, and need not be loaded whole")


def cut_down(whole: Any, cut: Cut, folder: Path, tokenizer: Any) -> Any:
    """The smaller model, by way of the files of both."""
    whole.save_pretrained(folder / "whole", max_shard_size="20KB")
    tensors = cut_weights(whole.config, cut, Lazy(folder / "whole"), refuse)
    write_folder(folder / "small", cut_config(whole.config, cut), tensors, tokenizer, "key")
    return load_model(str(folder / "small"), who="student.model", dtype="fp32").eval()


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def test_logits_of_the_pieces_that_stay_are_the_same_to_the_last_bit(whole, tmp_path, tokenizer):
    small = cut_down(whole, Cut(ALL, ROWS), tmp_path, tokenizer)
    rows, ids = torch.tensor(ROWS), torch.arange(20)[None]
    assert small.config.vocab_size == len(ROWS)
    assert torch.equal(logits(small, ids), logits(whole, rows[ids])[..., rows])


def test_layers_that_stay_are_those_of_a_model_cut_by_hand(whole, tmp_path, tokenizer):
    layers = (0, 2, 5, 7)
    small = cut_down(whole, Cut(layers, None), tmp_path, tokenizer)
    stack = next(m for m in whole.modules() if isinstance(m, torch.nn.ModuleList))
    kept = torch.nn.ModuleList([stack[layer] for layer in layers])
    owner = next(m for m in whole.modules() if any(child is stack for child in m.children()))
    setattr(owner, next(name for name, child in owner.named_children() if child is stack), kept)
    whole.config.num_hidden_layers = len(layers)
    if hasattr(whole.config, "layer_types"):  # by which the model picks each layer's mask
        whole.config.layer_types = [whole.config.layer_types[layer] for layer in layers]
    ids = torch.arange(20)[None]
    assert torch.equal(logits(small, ids), logits(whole, ids))


def test_kinds_of_attention_go_with_their_layers():
    kinds = CONFIGS["gemma3"].layer_types
    assert kinds[5] == "full_attention"
    assert cut_config(CONFIGS["gemma3"], Cut((0, 5, 7), None)).layer_types == [kinds[0], kinds[5], kinds[7]]


def test_special_pieces_have_their_new_ids_and_those_that_are_gone_none():
    config = cut_config(CONFIGS["llama"], Cut(ALL, (4, 9, 12)))
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, [1], None)
    two = LlamaConfig(**{**SHAPE, "num_hidden_layers": 2})
    assert cut_config(two, Cut((1,), None)).eos_token_id == [6, 9], "two ends are no list of two layers"


def test_weights_under_other_names_are_loaded(tmp_path, tokenizer):
    whole = AutoModelForCausalLM.from_config(CONFIGS["llama"])
    cut = Cut((0, 7), ROWS)
    whole.save_pretrained(tmp_path)
    lazy, loaded = (cut_weights(whole.config, cut, lazy, lambda: whole) for lazy in (Lazy(tmp_path), {}))
    assert lazy.keys() == loaded.keys()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in lazy.items())


def test_the_text_part_of_a_model_that_sees_is_found(tmp_path):
    from safetensors.torch import save_file

    whole = AutoModelForCausalLM.from_config(CONFIGS["llama"])
    names = {f"language_model.{name}": tensor for name, tensor in whole.state_dict().items()}
    save_file({**names, "vision_tower.layers.0.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    tensors = cut_weights(whole.config, Cut((1, 2), None), Lazy(tmp_path), refuse)
    assert torch.equal(tensors["model.layers.1.mlp.up_proj.weight"], whole.model.layers[2].mlp.up_proj.weight)


def test_a_folder_is_there_whole_or_not_at_all(tmp_path, tokenizer, monkeypatch):
    cut_down(AutoModelForCausalLM.from_config(CONFIGS["llama"]), Cut((0,), None), tmp_path, tokenizer)
    assert made_by(tmp_path / "small") == "key"
    before = sorted(file.name for file in tmp_path.rglob("*"))

    def full_disk(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dudi_kit.models.prune.save_file", full_disk)
    with pytest.raises(EnvironmentLack, match=r"can't write .*small: No space left"):
        write_folder(tmp_path / "small", CONFIGS["llama"], {"a": torch.zeros(1)}, tokenizer, "other")
    assert made_by(tmp_path / "small") == "key"
    assert set(before) <= {file.name for file in tmp_path.rglob("*")}


@pytest.mark.parametrize(
    ("wish", "layers"),
    [("all", ALL), (1, (0,)), (2, (0, 7)), (3, (0, 4, 7)), (8, ALL), ([0, 2, 7], (0, 2, 7))],
)
def test_layers_by_number_are_evenly_spaced_with_both_ends(wish, layers):
    assert chosen_layers(wish, 8) == layers


@pytest.mark.parametrize("count", [5, 18, 26, 80])
def test_spacing_is_even_to_one_layer(count):
    for number in range(2, count + 1):
        layers = chosen_layers(number, count)
        gaps = {b - a for a, b in itertools.pairwise(layers)}
        assert len(layers) == number
        assert (layers[0], layers[-1]) == (0, count - 1)
        assert max(gaps) - min(gaps) <= 1


def test_what_is_not_there_is_named():
    with pytest.raises(ModelError, match=r"9 layers are to stay, and the model has 8"):
        chosen_layers(9, 8)
    with pytest.raises(ModelError, match=r"no layer 8: the model has 8, numbered 0 to 7"):
        chosen_layers([0, 8], 8)


def test_layers_that_share_are_not_torn_apart():
    config = LlamaConfig(**SHAPE, num_kv_shared_layers=2)
    with pytest.raises(ModelError, match="num_kv_shared_layers is 2"):
        taken(config, Cut((0, 7), None))
    assert taken(config, Cut(ALL, None))
