"""A student that is spread over two processes: cut at load, whole to be sampled and saved, and resumed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dudi_kit.errors import EnvironmentLack, RecipeError
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import read_plan
from dudi_kit.train import engine
from tests.train.bench import ENVIRONMENT, Bench, metrics, weights
from tests.train.conftest import Runs


@pytest.fixture(scope="module")
def facts(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw."""
    few = "{zero_optimization: {stage3_param_persistence_threshold: 10}}"
    run = bench.plan("sharded", 2, deepspeed__stage="3", deepspeed__extra=few)
    out = tmp_path_factory.mktemp("sharded") / "facts"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.train.sharded", str(run.path), str(out)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in (0, 1)]


def test_each_process_holds_half_of_the_student_from_the_moment_it_is_loaded(facts):
    for seen in facts:
        assert seen["at load"] == pytest.approx(seen["whole"] / 2, rel=0.01)
        assert seen["before"] == pytest.approx(seen["whole"] / 2, rel=0.01)


def test_teacher_and_copies_stay_whole_and_their_layers_are_torchs(facts):
    assert all(seen["others are whole"] and seen["linear layers are torch's"] for seen in facts)


def test_a_sample_costs_one_gather_however_long_it_is_and_its_memory_is_freed(facts):
    for seen in facts:
        assert seen["gathers to have it whole"] > 0
        assert seen["gathers while it samples"] == 0
        assert seen["after"] == seen["before"]
        assert seen["whole is plain"]
        assert seen["says the same"]


def test_the_first_process_gets_all_weights_to_save(facts):
    assert all(seen["full state"] for seen in facts)


def test_a_frozen_model_can_be_spread_too_and_says_the_same(facts):
    for seen in facts:
        assert seen["teacher says the same"]
        assert not seen["teacher learns"]
        assert seen["teacher held"] < 0.6 * seen["teacher"]


def test_an_offloaded_run_goes_on_bit_for_bit(bench: Bench, runs: Runs, tmp_path: Path):
    whole = runs["2x2-zero3-offloaded"]
    run = RunDir(tmp_path / "resumed")
    shutil.copytree(whole.path, run.path)
    shutil.rmtree(run.final)
    assert "resuming after step 4" in bench.start(run, 2, resume=True).finish()
    assert metrics(run) == metrics(whole)
    ours, theirs = weights(run), weights(whole)
    assert all(ours[name].equal(tensor) for name, tensor in theirs.items())


def test_what_deepspeed_would_refuse_is_told_before_a_model_is_loaded(bench: Bench):
    def refused(name: str, **settings: str) -> str:
        with pytest.raises((RecipeError, EnvironmentLack)) as caught:
            engine._require_usable(read_plan(bench.plan(name, deepspeed__stage="3", **settings)))
        return str(caught.value)

    said = refused("odd", deepspeed__extra="{zero_optimization: {reduce_bucket_size: many}}")
    assert said.startswith("deepspeed.extra: DeepSpeed can't be set up with it: ")
    assert "reduce_bucket_size" in said
    assert "'int' object" in refused("no-mapping", deepspeed__extra="{aio: 5}")
    nowhere = refused("nowhere", deepspeed__offload="{optimizer: nvme, nvme_path: /no/such/disk}")
    assert nowhere == "deepspeed.offload.nvme_path: no such folder on this machine: /no/such/disk."


def test_what_deepspeed_refuses_as_it_starts_is_a_fault_of_the_extra_keys():
    from deepspeed.utils.logging import set_log_level_from_string

    extra = {"log_level": "chatty"}
    with pytest.raises(RecipeError, match="chatty is not one"), engine.extra_may_be_refused(extra):
        set_log_level_from_string("chatty")
    with pytest.raises(ValueError, match="chatty is not one"), engine.extra_may_be_refused({}):
        set_log_level_from_string("chatty")


def test_an_optimizer_that_needs_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine.torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentLack, match=r"paged_adamw_8bit .* no GPU here; use adamw_8bit or adamw"):
        engine._of_bitsandbytes("paged_adamw_8bit")
