"""What is learned does not depend on how the batch is split: micro-batches, processes and ZeRO stages, on DeepSpeed.

fp32; each run is a real one in processes of its own (see `conftest.RUNS`), 5 steps of 8 rows.
"""

import json
import math
from typing import Any

import pytest
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dudi_kit.errors import Exit
from dudi_kit.plan.layout import RunDir
from tests.train.bench import Bench, leaves, metrics, weights
from tests.train.conftest import RUNS, Runs
from tests.train.plain import Trained, train_plainly

GREEDY = ["1x4", "2x2-zero0", "2x4-zero1", "2x2-zero2", "1x8-zero3", "2x2-zero3-offloaded"]
SAMPLED = ["1x2-sampled", "2x4-sampled"]


@pytest.fixture(scope="module", autouse=True)
def _all_at_once(runs: Runs) -> None:
    runs.start(*(name for name in RUNS if name != "six-refreshed"))


@pytest.fixture(scope="module")
def plain(runs: Runs) -> Trained:
    return train_plainly(runs["1x8"])


def losses(line: dict[str, Any]) -> dict[str, float]:
    """The objective and every signal, before weighting."""
    return {"loss": line["loss"], **{name: signal["loss"] for name, signal in line["signals"].items()}}


def watched(line: dict[str, Any]) -> dict[str, float]:
    """All of a line but what only some of the runs measure."""
    return {path: value for path, value in leaves(line).items() if "/gradient/" not in path}


def plan_of(run: RunDir) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((run.path / "plan.json").read_text(encoding="utf-8"))
    return plan


def assert_same_run(runs: Runs, name: str, other: str) -> None:
    one, two = metrics(runs[name]), metrics(runs[other])
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 3, 4, 5]
    for line, expected in zip(one, two, strict=True):
        assert losses(line) == pytest.approx(losses(expected), rel=1e-6)
        assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)
        assert line["rollouts"] == expected["rollouts"]
        # by language, with all metrics: a margin is a small difference of large sums
        assert watched(line) == pytest.approx(watched(expected), rel=1e-5, abs=1e-4)
    ours, theirs = weights(runs[name]), weights(runs[other])
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert (tensor - theirs[key]).abs().max() <= 1e-6, key


@pytest.mark.parametrize("name", GREEDY)
def test_micro_batches_processes_and_zero_stages_give_the_losses_and_weights_of_one_whole_batch(runs, name):
    assert_same_run(runs, name, "1x8")


@pytest.mark.parametrize("name", ["1x8", "2x2-zero3-offloaded"])
def test_the_engine_learns_what_a_plain_loop_with_torch_learns(runs, plain, name):
    lines = metrics(runs[name])
    assert [line["loss"] for line in lines] == pytest.approx(plain.losses, rel=1e-5)
    assert [line["grad_norm"] for line in lines] == pytest.approx(plain.norms, rel=1e-5)
    ours = weights(runs[name])
    assert ours.keys() == plain.weights.keys()
    for key, tensor in plain.weights.items():
        assert (tensor - ours[key]).abs().max() <= 3e-6, key


@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_rollouts_do_not_depend_on_the_split(runs, name):
    assert_same_run(runs, name, "1x8-sampled")


def test_a_teacher_with_another_tokenizer_teaches_the_same_however_the_batch_is_split(runs):
    assert_same_run(runs, "2x2-zero2-aligned", "1x8-aligned")
    for line in metrics(runs["1x8-aligned"]):
        full, span = (line["signals"]["on_policy"]["metrics"][f"coverage_{name}"]["all"] for name in ("full", "span"))
        assert 0 < full < full + span <= 1
        assert span > 0
    # the recipe's on-policy signal is at 1.5, and its samples at 1
    assert any("rollouts are drawn at another temperature" in note for note in plan_of(runs["1x8-aligned"])["notices"])


def test_sampled_and_greedy_runs_differ_so_that_the_comparison_means_something(runs):
    assert losses(metrics(runs["1x8-sampled"])[-1]) != pytest.approx(losses(metrics(runs["1x8"])[-1]), rel=1e-3)


def test_every_weight_moved_by_far_more_than_the_tolerance(bench: Bench, runs: Runs):
    start = load_file(bench.folder / "student" / "model.safetensors")
    assert all((tensor - start[name]).abs().max() > 1e-4 for name, tensor in weights(runs["1x8"]).items())


def test_some_samples_ended_by_themselves_and_some_were_cut(runs):
    cut = [line["rollouts"]["truncated"]["all"] for line in metrics(runs["1x8-sampled"])]
    assert 0 < sum(cut) < len(cut)


def test_overlap_and_kl_are_logged_by_language_and_by_what_the_teacher_was_shown(runs):
    for line in metrics(runs["2x4-sampled"]):
        off_policy, on_policy = (line["signals"][name]["metrics"] for name in ("off_policy", "on_policy"))
        for name in ("top10_overlap", "reverse_kl"):
            assert off_policy[name]["by_source"].keys() == {"none"}
            assert on_policy[name]["by_source"].keys() == {"parallel"}
            assert on_policy[name]["by_language"].keys() == {"id", "vi", "th"}
        assert 0 < on_policy["top10_overlap"]["all"] < 1


def test_bf16_runs_with_finite_losses_near_those_of_fp32(runs):
    lines = metrics(runs["six-bf16"])
    assert len(lines) == 6
    assert all(math.isfinite(value) for line in lines for value in losses(line).values())
    assert losses(lines[0])["sft"] == pytest.approx(losses(metrics(runs["1x8-sampled"])[0])["sft"], rel=0.02)
    assert {str(tensor.dtype) for tensor in weights(runs["six-bf16"]).values()} <= {"torch.float32", "torch.bfloat16"}


@pytest.mark.parametrize("name", ["2x2-zero2", "2x2-zero3-offloaded"])
def test_gradients_by_signal_do_not_depend_on_the_split_and_add_up_to_the_gradient(runs, name):
    """And 1x4, which is compared with 1x8 above, has learned the same without measuring."""
    for one, two in zip(metrics(runs["1x8"]), metrics(runs[name]), strict=True):
        measured = {name: signal["gradient"] for name, signal in one["signals"].items()}
        assert measured.keys() == {"sequence", "off_policy", "on_policy", "sft"}
        for signal, gradient in measured.items():
            assert gradient == pytest.approx(two["signals"][signal]["gradient"], rel=1e-4), signal
        # g·g / ‖g‖ = Σ g_s·g / ‖g‖ = Σ ‖g_s‖ cos(g_s, g)
        along = sum(gradient["norm"] * gradient["cosine"] for gradient in measured.values())
        assert along == pytest.approx(one["grad_norm"], rel=1e-5)


def test_tensorboard_has_the_curves_of_every_run_under_the_names_of_the_metrics(runs):
    events = EventAccumulator(str(runs["2x2-zero2"].logs / "tensorboard"))
    events.Reload()
    for line in metrics(runs["2x2-zero2"]):
        at_step = {
            tag: value.value
            for tag in events.Tags()["scalars"]
            for value in events.Scalars(tag)
            if value.step == line["step"]
        }
        assert at_step["loss"] == pytest.approx(line["loss"])
        assert at_step["signals/sft/by_language/th"] == pytest.approx(line["signals"]["sft"]["by_language"]["th"])
        assert at_step["system/resident_bytes/by_rank/1"] > 1e8


def test_a_loss_that_is_no_number_any_more_stops_the_run_at_its_step_and_names_the_signals(bench: Bench) -> None:
    settings = {"training__learning_rate": "1e30", "training__schedule": "constant", "training__log_every": "100"}
    run = bench.plan("diverging", **settings)
    worker = bench.start(run)
    code = worker.wait()
    said = " ".join(worker.said.split())
    assert code == Exit.INVALID, said
    assert "the loss is nan at step 2, from sequence" in said
    assert "training.learning_rate" in said
    assert "Traceback" not in said
    assert not run.final.exists()
    rows = [json.loads(line) for line in run.failure(2, 0).read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 8
    assert all("sequence" in row["not_finite"] for row in rows)
    assert str(run.failure(2, 0)) in said.replace(" ", "")
    assert not run.metrics.exists()
