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


def test_scores_stand_in_a_line_of_their_own_with_what_is_missing(capsys):
    scores = {
        "bits_per_byte": {"all": 0.3141, "by_language": {"id": 0.3141}},
        "tasks": {"topic": {"accuracy": {"all": 25.0, "by_language": {"th": 25.0}}, "macro_f1": {"all": 20.0}}},
        "missing": {"topic": {"lo": "no rows"}},
        "best": {"by": "bits per byte", "step": 20, "value": 0.3141},
    }
    with training_progress(PLAN, show=True) as report:
        report(20, {"step": 20, "evaluation": scores})
        report(30, {"step": 30, "evaluation": scores})
        report(30, {"step": 30, "evaluation": {"tasks": {}, "missing": {"topic": {"lo": "no rows", "th": "no rows"}}}})
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "small  step 20/30  bits per byte 0.314  topic 25.000  (1 missing)  best so far"
    assert second == "small  step 30/30  bits per byte 0.314  topic 25.000  (1 missing)"
    assert third == "small  step 30/30  nothing could be scored  (2 missing)"
