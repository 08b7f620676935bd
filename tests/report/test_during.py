"""The course of scores in the report: the first, the best and the last step, and what is missing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dudi_kit.report.during import course_of
from dudi_kit.report.html import render
from dudi_kit.report.plots import score_curves
from dudi_kit.report.read import read_run

BITS = {0: 0.5, 100: 0.3, 200: 0.4, 400: 0.35}


def line(step: int, of: str = "rows", **more: Any) -> dict[str, Any]:
    bits = {"all": BITS[step], "by_language": {"id": BITS[step], "th": BITS[step] / 2}}
    best = {"by": "bits per byte", "step": 100, "value": 0.3}
    missing = {"topic": {"lo": "no rows <b>here</b>"}}
    tasks = {"topic": {"accuracy": {"all": 25.0, "by_language": {"th": 25.0}}}} if step else {}
    scores = {"of": of, "bits_per_byte": bits, "tasks": tasks, "missing": missing, "seconds": 1.0, **more}
    return {"step": step, "evaluation": scores | ({"best": best} if step >= 100 else {})}


def test_the_first_the_best_and_the_last_step_stand_side_by_side() -> None:
    course = course_of([line(step) for step in BITS])
    assert course is not None
    assert (course.shown, course.best, course.by) == ([0, 100, 400], 100, "bits per byte")
    bits, topic = course.scores
    assert bits.rows == [
        ("id", {0: 0.5, 100: 0.3, 400: 0.35}), ("th", {0: 0.25, 100: 0.15, 400: 0.175}),
        ("mean", {0: 0.5, 100: 0.3, 400: 0.35}),
    ]  # fmt: skip
    assert topic.title == "topic: accuracy"
    assert topic.rows[0] == ("th", {100: 25.0, 400: 25.0})
    assert course.missing == [("topic", "lo", "no rows <b>here</b>")]


def test_scores_of_other_rows_are_not_put_beside_them() -> None:
    course = course_of([line(0, of="others"), line(200), line(400)])
    assert course is not None
    assert [each["step"] for each in course.steps] == [200, 400]


def test_without_scores_there_is_no_course(metrics_line: Callable[[int], dict[str, Any]]) -> None:
    assert course_of([metrics_line(1)]) is None


def test_the_page_shows_them_beside_the_losses_of_the_same_steps(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line(step)) + "\n" for step in BITS)
    run = read_run(run_dir)
    assert [each["step"] for each in run.steps] == list(range(401))
    assert {"loss", "evaluation"} <= set(run.steps[100])
    page = render(run)
    assert '<section id="during">' in page
    assert '<a href="#during">' in page
    assert "Best step by bits per byte: 100." in page
    assert '<th scope="col">step 100 (best)</th>' in page
    assert "no rows &lt;b&gt;here&lt;/b&gt;" in page
    assert "<td>th Thai</td><td>–</td><td>25.0</td><td>25.0</td>" in page


def test_a_page_of_a_run_that_was_not_scored_has_no_such_section(run_dir: Path) -> None:
    assert "during" not in render(read_run(run_dir)).split("</style>")[1].split('id="recipe"')[0]


def test_the_best_step_is_a_dotted_line_in_every_panel() -> None:
    steps = [line(step) for step in BITS]
    path = ("evaluation", "bits_per_byte")
    marked, plain = score_curves(steps, path, 100), score_curves(steps, path, None)
    assert marked is not None
    assert plain is not None
    dotted = marked.count("stroke-dasharray") - plain.count("stroke-dasharray")
    assert dotted == 2
    assert ">th Thai<" in marked
