"""Which rises are flagged."""

import json
import random
from typing import Any

import pytest

from dudi_kit.train.spikes import FEWEST, LINES, Spikes


def line(loss: float, norm: float | None = 1.0, **signals: float) -> dict[str, Any]:
    return {"loss": loss, "grad_norm": norm, "signals": {name: {"loss": value} for name, value in signals.items()}}


def flagged(losses: list[float]) -> list[int]:
    watch = Spikes()
    return [i for i, loss in enumerate(losses) if watch.look(line(loss))]


def noisy(count: int, middle: float = 2.0) -> list[float]:
    chance = random.Random(0)
    return [chance.gauss(middle, 0.05) for _ in range(count)]


def test_noise_has_none_and_a_spike_in_it_is_found():
    assert flagged(noisy(400)) == []
    assert flagged([*noisy(40), 3.0, *noisy(40)]) == [40]


def test_one_spike_does_not_hide_the_next():
    assert flagged([*noisy(40), 30.0, *noisy(3), 2.6]) == [40, 44]


def test_it_is_told_in_deviations_by_hand():
    watch = Spikes()
    for value in [1.0, 1.1, 0.9, 1.2, 0.8] * 2:  # median 1, MAD 0.1
        watch.look(line(value))
    assert watch.look(line(2.0)) == {"loss": pytest.approx(1 / (1.4826 * 0.1))}


def test_a_fall_and_a_slow_rise_are_none():
    assert flagged([*noisy(40), 0.1]) == []
    assert flagged([1.0 + 0.01 * i for i in range(300)]) == []
    assert flagged([8.0 * 0.97**i for i in range(200)]) == []


def test_a_curve_that_lies_still_is_not_flagged_for_a_breath():
    assert flagged([1.0] * 40 + [1.05]) == []
    assert flagged([1.0] * 40 + [1.2]) == [40]
    assert flagged([0.0] * 40 + [1.0]) == []


def test_nothing_is_flagged_before_there_is_a_past():
    assert flagged([1.0] * (FEWEST - 1) + [100.0]) == []
    assert flagged([1.0] * FEWEST + [100.0]) == [FEWEST]


def test_a_new_level_is_normal_after_half_the_window():
    found = flagged([1.0] * LINES + [2.0] * LINES)
    assert found[0] == LINES
    assert len(found) <= LINES // 2 + 1


def test_gradient_norm_and_each_signal_are_watched_for_themselves():
    watch = Spikes()
    for _ in range(FEWEST):
        watch.look(line(1.0, 1.0, sft=1.0, sequence=1.0))
    assert watch.look(line(1.0, 9.0, sft=1.0, sequence=5.0)).keys() == {"grad_norm", "signals/sequence/loss"}
    assert watch.look(line(1.0, None, sft=1.0)) == {}


def test_a_resumed_run_flags_what_the_uninterrupted_one_does(tmp_path):
    lines = [line(loss) for loss in [*noisy(40), 3.0, *noisy(5), 2.9]]
    whole = Spikes()
    expected = [whole.look(each) for each in lines]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in lines[:30]))
    with file.open("a") as opened:
        opened.write(json.dumps({"step": 30, "evaluation": {"bits_per_byte": {"all": 99.0}}}) + "\n")
    resumed = Spikes()
    resumed.remember(file)
    assert [resumed.look(each) for each in lines[30:]] == expected[30:]
    Spikes().remember(tmp_path / "missing")
