"""Likelihoods of answers against one plain pass for each, and the choice among them."""

import math
from itertools import chain

import pytest
import torch
from transformers import LlamaForCausalLM

from dudi_kit.data.batches import Batch
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Turn
from dudi_kit.evaluate.likelihood import Question, answer_nats, likeliest
from dudi_kit.models.reading import response_nats
from tests.evaluate.conftest import SENTENCES


@pytest.fixture
def questions(encoder: Encoder) -> list[Question]:
    choices = [encoder.text_ids(text) for text in ("beras", "kucing tidur", "แม่ไปตลาด")]
    prompts = [encoder.prompt_ids((Turn("user", text),)) for texts in SENTENCES.values() for text in texts]
    return [Question(prompt, choices[: 1 + i % 3]) for i, prompt in enumerate(prompts)]


def _plain(model: LlamaForCausalLM, prompt: list[int], answer: list[int]) -> float:
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return -sum(float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(answer))


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_each_answer_has_the_likelihood_of_a_pass_of_its_own(
    model: LlamaForCausalLM, encoder: Encoder, questions: list[Question], batch_size: int
) -> None:
    seen: list[int] = []
    found = answer_nats(model.eval(), questions, pad_id=encoder.pad_id, batch_size=batch_size, progress=seen.append)
    expected = [[_plain(model, prompt, answer) for answer in answers] for prompt, answers in questions]
    assert [len(nats) for nats in found] == [len(nats) for nats in expected]
    assert list(chain(*found)) == pytest.approx(list(chain(*expected)), rel=1e-4)
    assert sum(seen) == sum(len(question.answers) for question in questions)


def test_answers_of_one_question_stand_behind_its_prompt_and_none_sees_another(
    model: LlamaForCausalLM, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Batch] = []

    def watched(model: LlamaForCausalLM, batch: Batch) -> list[float]:
        seen.append(batch)
        return response_nats(model, batch)

    monkeypatch.setattr("dudi_kit.evaluate.likelihood.response_nats", watched)
    prompts = [encoder.prompt_ids((Turn("user", text * 8),)) for text in SENTENCES["id"][:3]]
    answers = [encoder.text_ids(text) for text in ("beras", "kucing tidur", "beras ketan", "k")]
    asked = [Question(prompt, answers) for prompt in prompts]
    found = answer_nats(model.eval(), asked, pad_id=encoder.pad_id, batch_size=8)
    assert sorted(len(batch.input_ids_LT) for batch in seen) == [1, 2]
    expected = [[_plain(model, prompt, answer) for answer in answers] for prompt in prompts]
    assert list(chain(*found)) == pytest.approx(list(chain(*expected)), rel=1e-4)
    seen.clear()
    answer_nats(model, asked, pad_id=encoder.pad_id, batch_size=3)
    rows = [len(batch.line_B) for batch in seen]
    assert (sum(rows), max(rows)) == (12, 3)


def test_the_likeliest_answer_is_the_one_of_fewest_nats() -> None:
    assert likeliest([3.0, 1.5, 2.0]) == 1


@pytest.mark.parametrize("nats", [[1.0, 1.0, 2.0], [1.0, math.nan], [math.inf, 2.0], []])
def test_a_model_that_prefers_none_has_chosen_none(nats: list[float]) -> None:
    assert likeliest(nats) is None
