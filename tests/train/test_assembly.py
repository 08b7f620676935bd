"""What a training process makes of its models before the first step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from dudi_kit.data.batches import join
from dudi_kit.models.reference import frozen_copy
from dudi_kit.plan.schema import ModelSource
from dudi_kit.train import assembly
from dudi_kit.train.assembly import start_student
from tests.reading import response_logits


@pytest.fixture
def student() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=97, max_position_embeddings=512, **shape)).eval()


def test_the_reference_says_what_the_student_says_before_the_first_step_in_bf16(student: LlamaForCausalLM) -> None:
    anchored = frozen_copy(student, torch.bfloat16)
    for parameter in student.parameters():  # as DeepSpeed does: parameters, not buffers
        parameter.data = parameter.data.bfloat16()
    far = join([[5] * 400], [[7, 8, 9]], pad_id=0)
    assert torch.equal(response_logits(anchored, far), response_logits(student, far))


def test_a_checkpoints_odd_generation_settings_do_not_keep_the_student_from_being_saved(
    student: LlamaForCausalLM, tmp_path: Path
) -> None:
    student.save_pretrained(tmp_path / "start")
    # As in the Llama 2 family: a temperature, and no sampling. transformers loads it, and refuses to save it changed.
    (tmp_path / "start/generation_config.json").write_text('{"do_sample": false, "temperature": 0.6, "top_p": 0.9}')
    engine = {"zero_optimization": {"stage": 0}}
    plan = SimpleNamespace(start=ModelSource(path=str(tmp_path / "start"), dtype="fp32"), deepspeed=engine)
    encoder = SimpleNamespace(stop_ids=(2, 3), pad_id=0)
    recipe = SimpleNamespace(
        student=SimpleNamespace(adapter=None), training=SimpleNamespace(activation_checkpointing=False)
    )
    started = start_student(recipe, plan, encoder)
    started.save_pretrained(tmp_path / "final")
    saved = GenerationConfig.from_pretrained(tmp_path / "final")
    assert (saved.eos_token_id, saved.pad_token_id, saved.temperature) == ([2, 3], 0, None)


def test_a_model_whose_head_is_not_known_is_said_to_be_read_whole() -> None:
    said: list[str] = []
    accelerator: Any = SimpleNamespace(print=said.append)
    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(config)
    assembly._say_if_whole("student", model, accelerator)
    assert said == []
    model = LlamaForCausalLM(config)
    model.lm_head = nn.Sequential(nn.Linear(8, 20))
    assembly._say_if_whole("teacher", model, accelerator)
    assert len(said) == 1
    assert said[0].startswith("teacher: its head")
