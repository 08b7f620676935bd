"""The scripts of benchmarks/ that measure speed run, on tiny models; what they find then means nothing."""

import json

import pytest

from benchmarks import loss, measure, plot, scaling, step


@pytest.fixture
def options(tmp_path):
    return measure.arguments(None).parse_args(["--quick", "--into", str(tmp_path)])


@pytest.mark.parametrize("sequence", [False, True])
def test_the_loss_is_the_same_in_every_way(sequence):
    """A figure of a way that computes something else would be worth nothing."""
    for divergence in loss.DIVERGENCES:
        cell = {"pieces": 300, "tokens": 64, "dtype": "fp32", "divergence": divergence, "sequence": sequence}
        gradients = {}
        for way in loss.ways_of(cell):
            stage = loss.stage_of(cell)
            loss.WAYS[way](stage)
            gradients[way] = stage.student_NH.grad / stage.student_NH.grad.norm()
        for way, gradient in gradients.items():
            assert (gradient - gradients["full logits"]).norm() < 1e-3, (divergence, way)


def test_the_loss_stage_and_its_tables(options, capsys, tmp_path):
    loss.main(options)
    said = capsys.readouterr().out
    assert "responses of 4" in said
    assert said.count("R² = ") == 4  # time and memory, along rows and along lengths
    plot.main(tmp_path)
    assert (tmp_path / "speed.svg").stat().st_size


def test_a_step_and_its_table(options, capsys, tmp_path):
    step.main(options)
    said = capsys.readouterr().out
    assert "our step, all three / TRL's step" in said
    cells = json.loads((tmp_path / "step.json").read_text())["cells"]
    assert all(seconds > 0 for seconds in cells[f"time: tiny, {options.dtype}"]["seconds"].values())
    plot.main(tmp_path)
    assert (tmp_path / "speed.svg").stat().st_size


def test_a_plot_of_what_a_script_that_was_stopped_has_left(tmp_path):
    cells = {f"few: {size} pieces": {"seconds": {"ours": 1.0}} for size in (1, 2)}
    (tmp_path / "loss.json").write_text(json.dumps({"cells": cells}))
    with pytest.raises(SystemExit, match="no results"):
        plot.main(tmp_path)


def test_cost_along_a_change(options, capsys, tmp_path):
    results = measure.Results("scaling", options, scaling.measured)
    scaling.along(results, scaling.TINY | {"dtype": "fp32"}, "response", (16, 32))
    assert "R² = 1.0000" in capsys.readouterr().out  # two points
    assert set(results.cells) == {"step: response 16", "step: response 32"}


def test_what_was_measured_is_not_measured_again(tmp_path):
    options = measure.arguments(None).parse_args(["--into", str(tmp_path)])
    first = measure.Results("loss", options, lambda cell: {})
    first.measured = lambda cell: {"seconds": cell["n"]}
    assert first.cell("a", {"n": 1})["seconds"] == 1
    again = measure.Results("loss", options, lambda cell: {})
    again.measured = lambda cell: pytest.fail("measured again")
    assert again.cell("a", {"n": 1})["seconds"] == 1
    again.measured = lambda cell: {"seconds": cell["n"]}
    assert again.cell("a", {"n": 2})["seconds"] == 2, "asked for otherwise"


def test_a_line_through_points():
    slope, intercept, r2 = measure.line_through([1, 2, 3], [5.0, 7.0, 9.0])
    assert (slope, intercept, r2) == pytest.approx((2, 3, 1))
    assert measure.line_through([1, 2, 3], [1.0, 0.0, 1.0])[2] == pytest.approx(0)
