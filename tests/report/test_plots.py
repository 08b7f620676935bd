import matplotlib as mpl
import pytest

from dudi_kit.report.facts import spikes
from dudi_kit.report.plots import language_curves, loss_curves, thinned


def test_every_signal_and_language_has_a_panel(metrics_line):
    steps = [metrics_line(step) for step in range(1, 50)]
    svg = loss_curves(steps)
    for title in ["objective (loss)", "sequence (nats)", "off policy (nats)", "on policy (nats)", "learning rate"]:
        assert f">{title}<" in svg
    assert ">th Thai<" in language_curves(steps, "on_policy")


def test_gradients_by_signal_and_memory_have_panels_where_they_were_measured(metrics_line):
    steps = [metrics_line(step) for step in range(1, 5)]
    assert "gradient of" not in loss_curves(steps)
    for step in steps:
        step["signals"]["on_policy"]["gradient"] = {"norm": 0.5, "cosine": 0.1}
        step["system"] = {"resident_bytes": {"max": 2e9}}
    svg = loss_curves(steps)
    assert ">gradient of on policy<" in svg
    assert ">main memory (GB)<" in svg
    assert ">GPU memory (GB)<" not in svg


def test_spikes_are_counted_with_their_first_steps(metrics_line):
    steps = [metrics_line(step) for step in range(1, 50)]
    assert spikes(steps) is None
    for step in range(10, 17):
        steps[step - 1]["spikes"] = {"loss": 7.5, **({"grad_norm": 9.0} if step == 12 else {})}
    steps[0]["spikes"] = 3  # no line of ours
    assert spikes(steps) == (
        "Spikes: loss 7 (step 10, 11, 12, 13, 14, …); grad_norm 1 (step 12), among 49 logged lines."
    )


def test_nothing_logged_is_no_picture():
    assert loss_curves([]) is None
    assert loss_curves([{"step": 1, "loss": float("nan")}]) is None
    assert language_curves([{"step": 1, "signals": {"sft": {"loss": 1.0}}}], "sft") is None


def test_the_same_steps_give_the_same_svg_and_matplotlib_stays_as_it_was(metrics_line):
    steps, before = [metrics_line(step) for step in range(1, 5)], dict(mpl.rcParams)
    assert loss_curves(steps) == loss_curves(steps)
    assert dict(mpl.rcParams) == before


def test_thinning_takes_means_of_equal_stretches():
    assert thinned([(1, 1.0), (2, 3.0), (3, 5.0), (4, 7.0)], most=2) == [(2, 2.0), (4, 6.0)]
    points = [(i, float(i % 2)) for i in range(1000)]
    assert len(thinned(points)) == 100
    assert sum(v for _, v in thinned(points)) / 100 == pytest.approx(0.5, abs=0.01)
