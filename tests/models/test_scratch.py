"""Students from random weights."""

import pytest
import torch

from dudi_kit.models.scratch import CONFIGS, architecture_config, build, count_parameters, feed_forward_width
from dudi_kit.recipe.schema.models import Architecture

FAMILIES = list(CONFIGS)


def shape(**settings: object) -> Architecture:
    return Architecture(**{"hidden_size": 32, "layers": 2, "heads": 4, "context": 64, **settings})  # type: ignore[arg-type]


def config(**settings: object):
    return architecture_config(shape(**settings), vocabulary_size=100, pad_id=0, end_of_turn_id=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_weights_and_another_one_others(family):
    first, again, other = (build(config(family=family), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_weights_do_not_depend_on_what_was_drawn_before():
    first = build(config(), seed=1).state_dict()
    torch.rand(1000)
    again = build(config(), seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_counted_parameters_equal_the_real_ones(family, tied):
    made = build(config(family=family, tie_embeddings=tied), seed=0)
    assert count_parameters(made.config) == sum(parameter.numel() for parameter in made.parameters())


def test_tied_embeddings_are_counted_once():
    tied, apart = (count_parameters(config(tie_embeddings=tie)) for tie in (True, False))
    assert apart - tied == 100 * 32


def test_parameters_of_a_llama_by_hand():
    # embeddings 100·32; a layer: q and o 32·32 each, k and v 32·16 each, three of 32·96, two norms; a last norm
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 96 + 2 * 32
    assert count_parameters(config(kv_heads=2, intermediate_size=96)) == 100 * 32 + 2 * layer + 32


@pytest.mark.parametrize("family", FAMILIES)
def test_the_architecture_is_what_was_asked_for(family):
    made = build(config(family=family, kv_heads=2, intermediate_size=80), seed=0)
    said = made.config
    assert said.model_type.startswith(family)
    assert (said.vocab_size, said.hidden_size, said.num_hidden_layers, said.max_position_embeddings) == (100, 32, 2, 64)
    assert (said.num_attention_heads, said.num_key_value_heads, said.intermediate_size) == (4, 2, 80)
    assert (said.pad_token_id, said.eos_token_id, said.bos_token_id) == (0, 2, None)
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}
    made.generation_config.validate()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_student_comes_back_the_same(family, tmp_path):
    from dudi_kit.models.loading import load_model

    made = build(config(family=family), seed=0)
    made.save_pretrained(tmp_path / "student")
    again = load_model(str(tmp_path / "student"), who="student.model", dtype="fp32")
    assert type(again) is type(made)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in made.state_dict().items())


@pytest.mark.parametrize(("hidden", "width"), [(24, 64), (32, 96), (64, 176), (256, 688), (768, 2048)])
def test_feed_forward_width_is_8_thirds_rounded_up_to_16(hidden, width):
    assert feed_forward_width(hidden) == width
