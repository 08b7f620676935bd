"""A step that fails: what is saved of it, what is said, and that the weights were left alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dudi_kit.models.generation import Continuation
from dudi_kit.plan.rows import Row
from dudi_kit.signals.result import SignalResult
from dudi_kit.train.step import Pair
from dudi_kit.train.watch import Moment, StepRecord, failure, save_failure
from tests.small import call, tokenizer
from tests.train.bench import ENVIRONMENT

ROOT = Path(__file__).parents[2]
TOKENIZER = tokenizer()
NAN, INF = float("nan"), float("inf")
TEXTS = {"id": "Kucing itu di bawah meja.", "th": "แมวอยู่ใต้โต๊ะ"}


def pair(index: int, language: str, *, rollout: bool = True) -> Pair:
    ids = TOKENIZER.encode(TEXTS[language])
    row = Row(index, language, "rows", ids, ids, {})
    return Pair(row, Continuation(ids, ended=True) if rollout else None)


def result(*totals: float) -> SignalResult:
    return SignalResult(torch.tensor(totals, requires_grad=True), torch.full((len(totals),), 4))


def record(*parts: tuple[list[Pair], dict[str, SignalResult]]) -> StepRecord:
    made = StepRecord()
    for part in parts:
        made.add(*part)
    return made


BROKEN = record(
    ([pair(3, "id"), pair(8, "th")], {"sft": result(4.0, NAN), "sequence": result(1.0, 2.0)}),
    ([pair(5, "th", rollout=False)], {"sft": result(INF), "sequence": result(NAN)}),
)
LINE = {
    "step": 7,
    "loss": NAN,
    "signals": {
        "sft": {"loss": NAN, "by_language": {"id": 1.0, "th": NAN}},
        "sequence": {"loss": 0.5, "by_language": {"id": 0.5}},
    },
}


def saved(path: Path, made: StepRecord = BROKEN) -> list[dict[str, Any]]:
    save_failure(path, Moment(step=7, rank=1, seed=42), list(made.rows()), TOKENIZER)
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_of_the_step_is_saved_and_those_that_are_no_number_come_first(tmp_path):
    rows = saved(tmp_path / "failures" / "step-7.rank-1.jsonl")
    assert [row["row"] for row in rows] == [8, 5, 3]
    assert [row["not_finite"] for row in rows] == [["sft"], ["sft", "sequence"], []]
    first = rows[0]
    assert {key: first[key] for key in ("step", "rank", "seed", "micro_batch", "language", "dataset")} == {
        "step": 7, "rank": 1, "seed": 42, "micro_batch": 0, "language": "th", "dataset": "rows",
    }  # fmt: skip
    assert first["losses"] == {"sft": {"sum": "nan", "count": 4}, "sequence": {"sum": 2.0, "count": 4}}
    assert first["prompt"] == first["response"] == first["rollout"] == TEXTS["th"]
    assert TOKENIZER.decode(first["rollout_ids"]) == TEXTS["th"]
    assert rows[1]["rollout"] is None


def test_one_row_makes_the_total_no_number_and_without_such_a_row_it_is_one():
    whole = record(([pair(0, "id")], {"sft": result(1.0), "sequence": result(2.5)}))
    assert float(whole.total()) == 3.5
    assert not BROKEN.total().isfinite()
    assert not whole.total().requires_grad
    whole.clear()
    assert list(whole.rows()) == []


def test_the_message_names_step_signal_language_rows_and_file(tmp_path):
    said = str(failure(NAN, LINE, list(BROKEN.rows()), tmp_path / "step-7.rank-1.jsonl"))
    assert "the loss is nan at step 7, from sft (th)" in said
    assert "row 8 (th: sft), row 5 (th: sft, sequence)" in said
    assert "step-7.rank-1.jsonl" in said
    assert "The step was not applied." in said
    assert "--resume" in said


def test_a_gradient_alone_is_told_as_such(tmp_path):
    fine = record(([pair(0, "id")], {"sft": result(1.0)}))
    said = str(failure(INF, LINE | {"loss": 0.25}, list(fine.rows()), tmp_path / "x"))
    assert "the gradient norm is inf at step 7, although the loss is 0.25" in said
    assert "None of this process's rows" in said


def test_many_rows_are_counted_and_not_listed(tmp_path):
    many = record(([pair(i, "id") for i in range(9)], {"sft": result(*[NAN] * 9)}))
    assert "and 6 more" in str(failure(NAN, LINE, list(many.rows()), tmp_path / "x"))


def test_the_command_shows_the_rows_that_are_no_number_and_with_all_the_others_too(tmp_path):
    file = tmp_path / "step-7.rank-1.jsonl"
    saved(file)
    shown, everything = call("failure", file), call("failure", file, "--all")
    assert shown.exit_code == everything.exit_code == 0
    assert "step 7, rank 1, seed 42: 2 of 3 rows" in shown.stdout
    assert TEXTS["th"] in shown.stdout
    assert TEXTS["id"] not in shown.stdout
    assert TEXTS["id"] in everything.stdout


@pytest.mark.parametrize("text", ["", "{}\n", "[]\n", "no json\n"])
def test_another_file_is_told_as_such(tmp_path, text):
    file = tmp_path / "x.jsonl"
    file.write_text(text)
    assert call("failure", file).exit_code == 1
    assert call("failure", tmp_path / "missing").exit_code == 1


def test_no_stage_applies_a_gradient_that_is_no_number():
    command = [sys.executable, "-m", "tests.train.nonfinite"]
    environment = ENVIRONMENT | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300)
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert [(each["stage"], each["bf16"]) for each in outcomes] == [
        (0, False), (1, False), (2, False), (3, False), (1, True), (2, True), (3, True),
    ]  # fmt: skip
    for each in outcomes:
        assert each["a good step moves"], each
        assert not each["bad steps move"], each
        assert float(each["norms"][0]) == pytest.approx(80**0.5, rel=1e-3), each
        assert not any(torch.tensor(float(norm)).isfinite() for norm in each["norms"][1:]), each
