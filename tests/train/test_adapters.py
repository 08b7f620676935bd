"""Whole runs of a student with an adapter: what may change nothing changes nothing, and a resumed run is the same."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from dudi_kit.models.loading import load_model
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import read_plan
from tests.train.bench import leaves, metrics, weights
from tests.train.conftest import Runs

LORA, SHARED_OUT, QLORA = "1x8-lora", "2x4-zero3-lora", "1x8-qlora"


@pytest.fixture(scope="module", autouse=True)
def side_by_side(runs: Runs) -> None:
    runs.start(LORA, SHARED_OUT, QLORA)


def test_neither_the_reference_nor_checkpointing_nor_the_teachers_place_nor_the_layout_changes_what_is_learned(
    runs: Runs,
) -> None:
    one, other = (metrics(runs[name]) for name in (LORA, SHARED_OUT))
    for mine, theirs in zip(one, other, strict=True):
        assert leaves(mine) == pytest.approx(leaves(theirs), rel=1e-4, abs=1e-5)
    for name, tensor in weights(runs[LORA]).items():
        assert torch.allclose(tensor, weights(runs[SHARED_OUT])[name], atol=1e-5), name


def test_only_linear_layers_but_the_head_have_moved(runs: Runs) -> None:
    final, start = weights(runs[LORA]), load_file(runs.bench.folder / "student" / "model.safetensors")
    moved = {name for name, tensor in final.items() if not torch.equal(tensor, start[name])}
    assert moved == {name for name in start if name.endswith("_proj.weight")}


def test_the_plan_knows_what_is_trained_and_checkpoints_hold_the_state_of_nothing_else(runs: Runs) -> None:
    run = runs[LORA]
    plan = read_plan(run)
    adapter = load_file(run.final / "adapter" / "adapter_model.safetensors")
    assert plan.trained_parameters == sum(tensor.numel() for tensor in adapter.values())
    for kind in ("weights", "exp_avg", "exp_avg_sq"):
        state = load_file(run.checkpoints / "step-2" / "state" / f"{kind}.safetensors")
        assert sum(tensor.numel() for tensor in state.values()) == plan.trained_parameters


def test_a_resumed_run_is_the_uninterrupted_one(runs: Runs) -> None:
    whole = runs[LORA]
    again = RunDir(whole.path.with_name(f"{LORA}-resumed"))
    shutil.copytree(whole.path, again.path)
    shutil.rmtree(again.final)
    runs.submit(lambda: runs.bench.start(again, resume=True).finish()).result()
    assert metrics(again) == metrics(whole)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(again)[name]), name


def test_what_qlora_leaves_is_an_ordinary_model(runs: Runs) -> None:
    run = runs[QLORA]
    assert "quantization_config" not in json.loads((run.final / "config.json").read_text(encoding="utf-8"))
    model = load_model(str(run.final), who="student", dtype="bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert (run.final / "adapter" / "adapter_config.json").is_file()
    assert any("merged into the nf4 weights" in notice for notice in read_plan(run).notices)
