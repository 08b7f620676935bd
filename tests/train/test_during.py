"""When a student is scored, which step is the best, and that a scoring leaves no trace; nothing is trained here."""

import json
import random
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dudi_kit.errors import RunDirectoryError
from dudi_kit.plan.layout import RunDir
from dudi_kit.train.during import Best, StepScores, Watch, at_rest, forget_scores, told_best
from dudi_kit.train.worker import best_before_last, write_final

LOWER: Any = SimpleNamespace(identity="rows", best="bits per byte", lower_is_better=True)
HIGHER: Any = SimpleNamespace(identity="rows", best="topic", lower_is_better=False)


def watch(scorer: Any = LOWER, *values: float | None) -> Watch:
    """After scorings at the steps 0, 10, 20, …"""
    made = Watch(scorer, every=10, steps=45)
    for number, value in enumerate(values):
        made.note(10 * number, StepScores({}, value), 0.5)
    return made


def test_scored_are_the_start_every_so_many_steps_and_the_end() -> None:
    assert [step for step in range(46) if Watch(LOWER, 10, 45).is_due(step)] == [0, 10, 20, 30, 40, 45]
    assert [step for step in range(6) if Watch(LOWER, 10, 5).is_due(step)] == [0, 5]


def test_a_step_is_scored_once() -> None:
    assert not watch(LOWER, 1.0, 2.0).is_due(10)


@pytest.mark.parametrize(
    ("scorer", "values", "best"),
    [
        (LOWER, [1.0, 3.0, 2.0, 2.5], Best(20, 2.0)),
        (HIGHER, [1.0, 3.0, 2.0, 2.5], Best(10, 3.0)),
        (LOWER, [1.0, 2.0, 2.0], Best(10, 2.0)),
        (HIGHER, [50.0, None, 0.0, None], Best(20, 0.0)),
        (LOWER, [1.0, None], None),
        (LOWER, [1.0], None),
    ],
    ids=["lower", "higher", "the first of equals", "missing is not 0", "never had", "the start is no step"],
)
def test_the_best_step(scorer: Any, values: list[float | None], best: Best | None) -> None:
    assert watch(scorer, *values).best == best


def test_a_line_has_the_scores_the_seconds_and_the_best_so_far() -> None:
    made = watch(LOWER, 3.0, 2.0)
    line, scored = made.note(20, StepScores({"tasks": {}}, 2.5), 0.25)
    best = {"by": "bits per byte", "step": 10, "value": 2.0}
    assert line == {"step": 20, "evaluation": {"tasks": {}, "best": best, "seconds": 0.25}}
    assert not scored.is_best
    assert made.note(30, StepScores({}, 1.0), 0.25)[1].is_best


def test_a_resumed_run_knows_what_its_checkpoint_knew(tmp_path: Any) -> None:
    run, before = RunDir(tmp_path), watch(LOWER, 3.0, 2.0, 2.5)
    (run.checkpoints / "step-10").mkdir(parents=True)
    after = watch()
    assert after.go_on(run, json.loads(json.dumps(before.state))) is None
    assert (after.scored, after.start, after.best) == (20, 3.0, Best(10, 2.0))


def test_scores_of_other_rows_or_by_another_score_do_not_count(tmp_path: Any) -> None:
    for scorer in (SimpleNamespace(**{**vars(LOWER), "identity": "others"}), HIGHER):
        after = watch(scorer)
        said = after.go_on(RunDir(tmp_path), watch(LOWER, 3.0, 2.0).state)
        assert "what was scored before does not count" in (said or "")
        assert (after.scored, after.best) == (None, None)


def test_a_best_step_whose_checkpoint_is_gone_does_not_count(tmp_path: Any) -> None:
    after = watch()
    said = after.go_on(RunDir(tmp_path), watch(LOWER, 3.0, 2.0, 2.5).state)
    assert "the best step so far was 10, and" in (said or "")
    assert (after.scored, after.best) == (20, None)
    assert watch().go_on(RunDir(tmp_path), None) is None


def test_where_the_best_step_lies_is_written_down(tmp_path: Any) -> None:
    run, made = RunDir(tmp_path), watch(HIGHER, 50.0, 75.0)
    said = told_best(run, made)
    assert json.loads(run.best.read_text()) == {
        "step": 10, "score": "topic", "value": 75.0, "folder": "checkpoints/step-10",
    }  # fmt: skip
    assert said == f"best step 10 of 45: topic 75, 50 before the first step; it lies in {tmp_path}/checkpoints/step-10"
    made.note(45, StepScores({}, 80.0), 0.5)
    assert (told_best(run, made) or "").endswith(f"it lies in {tmp_path}/final")
    assert told_best(run, watch()) is None


def loop_of(run: RunDir, made: Watch | None, final: str) -> Any:
    during = SimpleNamespace(final=final) if made else None
    return SimpleNamespace(
        run=run,
        around=SimpleNamespace(watch=made),
        recipe=SimpleNamespace(evaluation=SimpleNamespace(during_training=during)),
    )


def test_which_step_becomes_the_final_model(tmp_path: Any) -> None:
    run, said = RunDir(tmp_path), list[str]()

    def chosen(made: Watch | None, final: str = "best") -> Any:
        return best_before_last(loop_of(run, made, final), said.append)

    last = Watch(LOWER, every=10, steps=10)
    last.note(10, StepScores({}, 1.0), 0.5)
    assert chosen(watch(LOWER, 3.0, 2.0, 2.5)) == run.checkpoints / "step-10"
    assert [chosen(None), chosen(watch(LOWER, 3.0, 2.0), "last"), chosen(last)] == [None] * 3
    assert said == []
    assert chosen(watch(LOWER, 3.0, None)) is None
    assert said == ["no step has a bits per byte of all its languages: the final model is the last step's"]


def test_a_damaged_best_step_does_not_become_the_final_model(tmp_path: Any) -> None:
    run = RunDir(tmp_path)
    (run.checkpoints / "step-10").mkdir(parents=True)
    loop = loop_of(run, watch(LOWER, 3.0, 2.0, 2.5), "best")
    loop.accelerator, loop.models = SimpleNamespace(is_main_process=True), SimpleNamespace(student=None)
    with pytest.raises(RunDirectoryError, match=r"the best step can't become the final model: .*manifest\.json"):
        write_final(loop, tmp_path / "final")
    assert not run.final.exists()


def test_a_scoring_leaves_modes_and_random_numbers_as_they_were() -> None:
    frozen = nn.Dropout(0.5).eval()
    student = nn.Sequential(nn.Dropout(0.5), frozen, nn.Linear(2, 2)).train()
    frozen.eval()

    def draws() -> tuple[Any, ...]:
        return torch.rand(3).tolist(), np.random.rand(), random.random()

    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    expected = draws()
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    with suppress(KeyError), at_rest(student):
        assert not any(module.training for module in student.modules())
        assert torch.equal(student[0](torch.ones(99)), torch.ones(99))
        draws()
        raise KeyError
    assert draws() == expected
    assert [module.training for module in student] == [True, False, True]
    assert student.training


def test_scores_that_are_taken_again_are_dropped_and_nothing_else(tmp_path: Any) -> None:
    lines = [{"step": 0, "evaluation": {}}, {"step": 10, "loss": 1.0}, {"step": 10, "evaluation": {}}]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    forget_scores(file, 10)
    assert [json.loads(line) for line in file.read_text().splitlines()] == lines[:2]
    forget_scores(tmp_path / "missing", 0)
