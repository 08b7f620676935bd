"""lm-eval on our student: offline, with a task file of our own, against the likelihoods computed by hand."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Turn
from dudi_kit.errors import EnvironmentLack, UsageError
from dudi_kit.evaluate.harness import run_harness
from dudi_kit.evaluate.harness_scores import Mode

pytest.importorskip("lm_eval", reason="lm-eval is an optional extra")

ROWS = [
    {"text": "Harga beras naik lagi.", "choices": ["mahal", "murah"], "gold": 0},
    {"text": "Kucing itu tidur.", "choices": ["malam", "pasar"], "gold": 1},
    {"text": "Ibu pergi ke pasar.", "choices": ["beras", "hujan"], "gold": 0},
    {"text": "Hujan turun.", "choices": ["ibu", "kucing"], "gold": 1},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    task = {
        "task": "dudi_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "brier_score"}],
    }
    (tmp_path / "dudi_choice.yaml").write_text(json.dumps(task), encoding="utf-8")
    return tmp_path


def _likelihood(model: LlamaForCausalLM, prompt: list[int], response: list[int]) -> float:
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(response))


def _by_hand(model: LlamaForCausalLM, encoder: Encoder, mode: Mode) -> float:
    """Brier score of the choices' probabilities, each after the prompt that our own encoder makes."""

    def ids(text: str) -> list[int]:
        found: list[int] = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    squares = []
    for row in ROWS:
        prompt = encoder.prompt_ids((Turn("user", str(row["text"])),)) if mode == "instruct" else ids(str(row["text"]))
        space = "" if mode == "instruct" else " "  # lm-eval puts one between text and choice, none after a template
        scores = [_likelihood(model, prompt, ids(f"{space}{choice}")) for choice in row["choices"]]  # type: ignore[attr-defined]
        right = functional.one_hot(torch.tensor(row["gold"]), 2)
        squares.append(float((torch.tensor(scores).softmax(-1) - right).square().sum()))
    return sum(squares) / len(squares)


@pytest.mark.parametrize("mode", ["instruct", "base"])
def test_scores_are_those_of_the_prompts_that_the_student_was_trained_on(
    model: LlamaForCausalLM, encoder: Encoder, folder: Path, mode: Mode
) -> None:
    found = run_harness(model.eval(), encoder.tokenizer, ["dudi_choice"], mode=mode, folder=folder)
    scores = {score.metric: score for score in found.scores}
    assert scores["brier_score,none"].value == pytest.approx(_by_hand(model, encoder, mode), rel=1e-4)
    assert scores["acc,none"].standard_error is not None
    assert scores["acc,none"].rows == len(ROWS)


def test_an_unknown_task_is_answered_with_near_ones(model: LlamaForCausalLM, encoder: Encoder, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no task 'dudi_choise'\. Did you mean dudi_choice"):
        run_harness(model, encoder.tokenizer, ["dudi_choise"], mode="instruct", folder=folder)


def test_data_that_can_not_be_had_is_said(model: LlamaForCausalLM, encoder: Encoder, folder: Path) -> None:
    (folder / "rows.jsonl").unlink()
    with pytest.raises(EnvironmentLack, match="lm-eval can't run dudi_choice"):
        run_harness(model, encoder.tokenizer, ["dudi_choice"], mode="instruct", folder=folder)
