"""Teachers packed by bitsandbytes: near to what they said, smaller, frozen, used alike in training and evaluation."""

import copy
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
)

from dudi_kit.data.batches import join
from dudi_kit.errors import EnvironmentLack
from dudi_kit.models.generation import Stops, continue_prompts
from dudi_kit.models.loading import freeze, load_model
from dudi_kit.pipeline import weights
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import read_plan
from tests.reading import response_logits
from tests.small import ARCHITECTURE, DATASET, call, tokenizer, write_chain
from tests.standin_hub import MODELS

VOCABULARY = 96
KINDS = ["int8", "nf4"]
FARTHEST = {"int8": 1e-3, "nf4": 0.1}
"""KL(fp32 ‖ packed) of this model in nats a token, four times what is measured (2e-4, 2.7e-2; bf16 4e-5)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.1,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("teacher")
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def load(folder: Path, **options: Any) -> Any:
    return freeze(load_model(str(folder), **{"who": "teacher.model", "dtype": "bf16", **options}))


@torch.no_grad()
def log_probabilities(model: Any) -> torch.Tensor:
    ids_BT = torch.randint(0, VOCABULARY, (4, 32), generator=torch.Generator().manual_seed(1))
    return model(ids_BT).logits.float().log_softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_teacher_says_nearly_the_same(folder, kind):
    whole, packed = (log_probabilities(load(folder, **o)) for o in ({"dtype": "fp32"}, {"quantization": kind}))
    divergence = (whole.exp() * (whole - packed)).sum(-1).mean().item()
    assert 0 < divergence < FARTHEST[kind]


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.5), ("nf4", 0.25)])
def test_its_linear_layers_take_that_share_of_bf16_and_its_head_is_left_as_it_is(folder, kind, share):
    whole, packed = load(folder), load(folder, quantization=kind)

    def in_bytes(model: Any) -> int:
        return sum(p.numel() * p.element_size() for name, p in model.named_parameters() if "_proj" in name)

    assert in_bytes(packed) == share * in_bytes(whole)
    assert torch.equal(packed.lm_head.weight, whole.lm_head.weight)
    assert torch.equal(packed.model.embed_tokens.weight, whole.model.embed_tokens.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_frozen_and_gives_its_input_no_gradient(folder, kind):
    packed = load(folder, quantization=kind)
    assert not packed.training
    assert not any(module.training for module in packed.modules())
    assert not any(parameter.requires_grad for parameter in packed.parameters())
    assert not packed(torch.tensor([[1, 2, 3]])).logits.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_it_generates_as_it_does_in_batches_and_alone(folder, kind):
    packed = load(folder, quantization=kind)
    stops = Stops((0,), 0)
    prompts = [[5, 6, 7], [8, 9]]
    together = continue_prompts(packed, prompts, stops, max_new_tokens=6)
    assert [len(said.ids) for said in together] == [6, 6]
    assert together == [continue_prompts(packed, [prompt], stops, max_new_tokens=6)[0] for prompt in prompts]


def test_without_bitsandbytes_it_is_said_what_to_do(folder, monkeypatch):
    from transformers.quantizers import quantizer_bnb_4bit

    monkeypatch.setattr(quantizer_bnb_4bit, "is_bitsandbytes_available", lambda *_: False)
    with pytest.raises(EnvironmentLack, match=r"teacher\.model: nf4 needs bitsandbytes.*quantization: none"):
        load(folder, quantization="nf4")


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[str, str]]:
    """A student trained by an nf4 teacher and both of them scored, by the command line.

    Its run directory, what the command said, and how each model was packed for its scores.
    """
    place = tmp_path_factory.mktemp("distilled")
    made = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(made), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(place / "teacher")
    made.save_pretrained(place / "teacher")
    recipe = write_chain(
        place,
        teacher={"model": "./teacher", "quantization": "nf4"},
        student={"init": "scratch", "architecture": ARCHITECTURE, "tokenizer": {"from": "teacher"}},
        evaluation={
            "models": ["teacher", "after"],
            "tasks": {"where": {"data": {**DATASET, "limit": 1}, "max_new_tokens": 4}},
        },
    )
    packed: dict[str, str] = {}

    def watched(*arguments: Any, **options: Any) -> Any:
        packed[options["who"]] = options["quantization"]
        return load_model(*arguments, **options)

    with mock.patch.object(weights, "load_model", watched):
        result = call("run", recipe, "--output", place / "out")
    return place / "out" / "student", result, packed


def test_a_student_learns_from_a_packed_teacher_and_both_are_scored(distilled):
    run, result, packed = distilled
    assert result.exit_code == 0, result.stderr
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2
    for who in ("teacher", "after"):
        assert (run / "evaluation" / f"{who}.json").is_file()
    assert packed == {"teacher": "nf4", "student": "none"}


def test_the_plan_says_how_the_teacher_is_packed_and_the_lock_depends_on_it(distilled):
    run, *_ = distilled
    plan = read_plan(RunDir(run))
    assert plan.teacher is not None
    assert (plan.teacher.quantization, plan.teacher.dtype) == ("nf4", "bf16")
    lock = json.loads((run / "lock.json").read_text())
    assert lock["settings"]["teacher"]["quantization"] == "nf4"


def test_the_student_itself_is_never_packed(distilled):
    run, *_ = distilled
    student = load_model(str(run / "final"), who="student", dtype="fp32")
    assert not hasattr(student.config, "quantization_config")
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


# The families that shipped recipes name, in small


SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SMALL_EYE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
             "image_size": 28, "patch_size": 14}  # fmt: skip


def write_small(name: str, folder: Path) -> None:
    """A model of the stand-in hub with all that its config.json says, but its sizes; random weights."""
    config = copy.deepcopy(MODELS[name].config)
    if "text_config" in config:
        config |= {"mm_tokens_per_image": 4, "image_token_index": 95}
        config["text_config"] |= SMALL
        config["vision_config"] |= SMALL_EYE
    else:
        config |= SMALL
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    kind = AutoModelForImageTextToText if "text_config" in config else AutoModelForCausalLM
    torch.manual_seed(0)
    kind.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)


TEACHERS = [name for name in MODELS if "Instruct" in name or "-IT" in name or name == "Qwen/Qwen3-4B"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEACHERS)
def test_every_family_of_teachers_is_packed_and_reads_a_batch(name, kind, tmp_path):
    write_small(name, tmp_path)
    batch = join([[5, 6, 7], [8, 9]], [[10, 11], [12, 13, 14]], pad_id=0)
    said = {}
    for quantization in ("none", kind):
        teacher = load(tmp_path, quantization=quantization)
        said[quantization] = response_logits(teacher, batch).float().log_softmax(-1)
    assert said[kind].shape == (5, SMALL["vocab_size"])
    divergence = (said["none"].exp() * (said["none"] - said[kind])).sum(-1).mean().item()
    assert 0 < divergence < FARTHEST[kind]
