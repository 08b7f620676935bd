"""What a person sees of a spike."""

from types import SimpleNamespace
from typing import Any

from dudi_kit.train.progress import training_progress

PLAN: Any = SimpleNamespace(name="small", steps=30)


def line(step: int, **more: Any) -> dict[str, Any]:
    signals = {"sft": {"loss": 2.0}}
    return {"step": step, "loss": 2.0, "signals": signals, "tokens_per_second": 100.0, **more}


def test_a_spike_stands_in_its_line_and_all_are_counted_in_the_end(capsys):
    with training_progress(PLAN, show=True) as report:
        report(10, line(10))
        report(20, line(20, spikes={"loss": 7.25, "grad_norm": 9.0}))
        report(30, line(30, spikes={"loss": 6.5}))
    said = capsys.readouterr()
    first, second, *_ = said.out.splitlines()
    assert "spike" not in first
    assert second.endswith("spike: loss, 7.2 deviations  spike: grad_norm, 9.0 deviations")
    assert "small: 2 logged lines with a spike" in said.err


def test_without_spikes_nothing_is_said_of_them(capsys):
    with training_progress(PLAN, show=True) as report:
        report(10, line(10))
    assert "spike" not in "".join(capsys.readouterr())
