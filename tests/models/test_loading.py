"""Weights that exist, and clear words where they can't be used. Nothing here reaches the network."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from dudi_kit.errors import ModelError
from dudi_kit.models.loading import freeze, load_model
from dudi_kit.models.reference import frozen_copy, refresh

HEADS, KV_HEADS, HIDDEN, LAYERS, CONTEXT, VOCABULARY = 4, 2, 32, 2, 64, 96


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=CONTEXT,
        tie_word_embeddings=False, initializer_range=0.3, rms_norm_eps=1e-6,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load(folder: Path | str, **options: Any) -> Any:
    return load_model(str(folder), **{"who": "teacher.model", "dtype": "fp32", **options})


def differing(model: Any, other: Any) -> list[str]:
    theirs = other.state_dict()
    return [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, theirs[name])]


def test_a_folder_of_safetensors_is_loaded_as_it_is(model, folder):
    assert differing(model, load(folder)) == []


def test_shards_are_put_together(model, tmp_path):
    model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert differing(model, load(tmp_path / "shards")) == []


@pytest.mark.parametrize(("dtype", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_weights_are_held_in_the_precision_of_the_recipe(folder, dtype, expected):
    assert {parameter.dtype for parameter in load(folder, dtype=dtype).parameters()} == {expected}


def test_pickled_weights_are_refused_and_never_opened(model, folder, tmp_path):
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "exploded").write_text, ("boom",))

    (folder / "model.safetensors").unlink()
    torch.save({**model.state_dict(), "bomb": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        load(folder)
    said = str(caught.value)
    assert said.startswith("teacher.model: can't load a causal LM from folder")
    assert str(folder) in said
    assert "safetensors" in said
    assert not (tmp_path / "exploded").exists()


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w').close()\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="teacher"):
        load(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_missing_folder_is_named_with_both_ways_to_write_a_model(tmp_path):
    with pytest.raises(ModelError, match=r"teacher\.model: no such folder: .*nowhere.*owner/name"):
        load(tmp_path / "nowhere")


def test_a_folder_without_a_model_says_what_it_needs(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"config\.json and \.safetensors"):
        load(tmp_path / "empty")


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_weights_are_an_error_about_the_folder(folder, damage):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"not weights at all"}[damage])
    with pytest.raises(ModelError, match=r"teacher\.model: can't load a causal LM from folder"):
        load(folder)


def test_a_configuration_of_another_shape_is_an_error_about_the_folder(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64, "head_dim": 16}))
    with pytest.raises(ModelError, match=r"lm_head\.weight is \[96, 32\] and should be \[96, 64\], and 20 more"):
        load(folder)


def test_weights_that_lack_a_matrix_are_refused(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"teacher\.model: .*model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        load(folder)


def test_a_checkpoint_without_a_head_is_refused_unless_the_embeddings_are_its_head(model, tmp_path):
    model.model.save_pretrained(tmp_path / "headless")
    with pytest.raises(ModelError, match=r"lm_head\.weight is missing"):
        load(tmp_path / "headless")
    config = json.loads((tmp_path / "headless" / "config.json").read_text())
    (tmp_path / "headless" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    loaded = load(tmp_path / "headless")
    assert torch.equal(loaded.lm_head.weight, model.model.embed_tokens.weight)


def test_a_name_on_the_hub_that_is_out_of_reach_is_named_with_its_revision(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"teacher\.model: can't load nobody/nothing at revision v9 from the hub"):
        load("nobody/nothing", revision="v9")


# --- GGUF


def permuted(weight: Tensor, heads: int) -> Any:
    """llama.cpp's order of the rotary halves: pairs beside each other."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)
    return np.ascontiguousarray(pairs.reshape(rows, columns).numpy())


@pytest.fixture
def gguf_folder(model: Any, tmp_path: Path) -> Path:
    """The model as one unquantised GGUF file."""
    gguf = pytest.importorskip("gguf")
    folder = tmp_path / "gguf"
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCABULARY)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    writer.add_tensor("output.weight", state["lm_head.weight"].numpy())
    names = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    for i in range(LAYERS):
        for theirs, ours in names.items():
            writer.add_tensor(f"blk.{i}.{theirs}.weight", state[f"model.layers.{i}.{ours}.weight"].numpy())
        for theirs, ours, heads in (("attn_q", "q_proj", HEADS), ("attn_k", "k_proj", KV_HEADS)):
            weight = state[f"model.layers.{i}.self_attn.{ours}.weight"]
            writer.add_tensor(f"blk.{i}.{theirs}.weight", permuted(weight, heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def test_a_gguf_file_becomes_ordinary_weights_that_say_the_same(model, gguf_folder):
    loaded = load(gguf_folder, gguf_file="model.gguf")
    ids = torch.tensor([[1, 5, 9, 2]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_model_from_a_gguf_file_can_be_saved_and_loaded_as_safetensors(gguf_folder, tmp_path):
    loaded = load(gguf_folder, gguf_file="model.gguf")
    loaded.save_pretrained(tmp_path / "saved")
    assert differing(loaded, load(tmp_path / "saved")) == []


def test_a_gguf_file_that_is_not_there_is_an_error_about_the_folder(folder):
    with pytest.raises(ModelError, match=r"teacher.model: .*other\.gguf"):
        load(folder, gguf_file="other.gguf")


def test_a_file_that_is_no_gguf_is_an_error_about_the_folder(folder):
    shutil.copy(folder / "config.json", folder / "model.gguf")
    with pytest.raises(ModelError, match=r"teacher\.model: can't load"):
        load(folder, gguf_file="model.gguf")


# --- frozen models


def test_a_frozen_model_neither_trains_nor_drops_out(model, folder):
    frozen = freeze(load(folder).train())
    assert not frozen.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_a_reference_is_a_copy_that_stays_and_follows_only_when_it_is_refreshed(folder):
    student = load(folder)
    reference = frozen_copy(student, torch.float32)
    assert differing(student, reference) == []
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 1
    assert differing(student, reference) == list(student.state_dict())
    refresh(reference, student.state_dict())
    assert differing(student, reference) == []
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    with torch.no_grad():
        next(student.parameters()).add_(1)
    assert len(differing(student, reference)) == 1, "the weights were copied and are not shared"


def test_a_reference_of_tied_embeddings_stays_tied(tmp_path):
    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=True,
    )  # fmt: skip
    student = LlamaForCausalLM(config)
    reference = frozen_copy(student, torch.float32)
    with torch.no_grad():
        student.lm_head.weight.add_(1)
    refresh(reference, student.state_dict())
    assert reference.lm_head.weight.data_ptr() == reference.model.embed_tokens.weight.data_ptr()
    assert differing(student, reference) == []
