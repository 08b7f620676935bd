"""Samples in every N-th step: which signals act when, what the lines say, and that the split does not matter."""

import json

import pytest
import torch

from dudi_kit.signals.result import SignalResult
from dudi_kit.train.metrics import Window
from dudi_kit.train.rollout_log import moments_of
from tests.train.bench import LANGUAGES, RECIPE, leaves, metrics
from tests.train.conftest import Runs

WEIGHTS = {name: signal["weight"] for name, signal in RECIPE["signals"].items()}


def test_signals_on_samples_rest_between_and_keep_their_weight(runs: Runs) -> None:
    runs.start("1x8-every", "2x2-every")
    for line in metrics(runs["1x8-every"]):
        samples = line["step"] % 2 == 1
        assert set(line["signals"]) == set(WEIGHTS if samples else {"off_policy", "sft"})
        assert ("rollouts" in line) == samples
        expected = sum(WEIGHTS[name] * signal["loss"] for name, signal in line["signals"].items())
        assert line["loss"] == pytest.approx(expected)


def test_neither_processes_nor_micro_batches_nor_slices_change_a_thinned_run(runs: Runs) -> None:
    for one, other in zip(metrics(runs["1x8-every"]), metrics(runs["2x2-every"]), strict=True):
        assert leaves(other) == pytest.approx(leaves(one), rel=2e-4, abs=2e-5)


def test_the_log_shows_a_sample_of_each_language_whoever_sampled_it(runs: Runs) -> None:
    one, other = (
        [json.loads(line) for line in runs[name].rollout_log.read_text(encoding="utf-8").splitlines()]
        for name in ("1x8-every", "2x2-every")
    )
    assert [(line["step"], line["language"]) for line in one] == [
        (step, language) for step in (1, 3, 5) for language in sorted(LANGUAGES)
    ]
    for mine, theirs in zip(one, other, strict=True):
        assert mine.pop("losses") == pytest.approx(theirs.pop("losses"), rel=2e-4, abs=2e-5)
        assert mine == theirs
        assert mine["ended"] == mine["sample"].endswith("<|im_end|>")


def test_in_the_loss_of_a_window_a_signal_counts_for_its_share_of_the_steps() -> None:
    window = Window(["id"], torch.device("cpu"))
    one = torch.ones(1)
    for value in (2.0, 4.0, 6.0):
        window.add_signal("sft", SignalResult(one * value, one), ["id"])
    window.add_signal("sequence", SignalResult(one * 9.0, one), ["id"])
    for resting in ([], ["sequence"], ["sequence"]):
        window.add_step(resting)
    line = window.summary(window.read_out(), {"sequence": 0.5, "sft": 1.0})
    assert line["signals"]["sequence"]["loss"] == 9.0
    assert line["loss"] == pytest.approx(4.0 + 0.5 * 9.0 / 3)


def test_a_window_without_any_sample_leaves_those_signals_out() -> None:
    window = Window(["id"], torch.device("cpu"))
    window.add_signal("sft", SignalResult(torch.ones(1), torch.ones(1)), ["id"])
    window.add_step(["sequence"])
    line = window.summary(window.read_out(), {"sequence": 0.5, "sft": 1.0})
    assert line["loss"] == 1.0
    assert set(line["signals"]) == {"sft"}


def test_the_log_is_written_at_logged_steps_that_sample_and_at_200_of_them_at_most() -> None:
    assert list(moments_of(10, every=1, log_every=3)) == [0, 3, 6, 9]
    assert list(moments_of(10, every=2, log_every=3)) == [0, 4, 8]
    assert len(moments_of(100_000, every=1, log_every=1)) == 200
