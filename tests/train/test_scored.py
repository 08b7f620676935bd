"""Real runs that score their student while it trains: they learn what others learn, and are resumed as others are."""

import json
import signal
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dudi_kit.plan.layout import RunDir
from dudi_kit.train.checkpoints import Checkpoint, facts
from tests.train.bench import Bench, leaves, metrics, weights
from tests.train.conftest import RUNS, Runs

PLAIN, SCORED, BEST = "six-dropout", "six-dropout-scored", "two-zero3-best"


class Stories:
    """A run that is killed after its checkpoint, one that is asked to stop while its student is asked; both go on."""

    def __init__(self, bench: Bench, runs: Runs) -> None:
        self.bench = bench
        runs.start(PLAIN, SCORED, BEST)
        self.killed: Future[RunDir] = runs.submit(self._killed)
        self.stopped: Future[tuple[RunDir, int, str]] = runs.submit(self._stopped)

    def _killed(self) -> RunDir:
        run = self.bench.killed("killed-scored", "step-4", **RUNS[SCORED])
        self.bench.start(run, resume=True).finish()
        return run

    def _stopped(self) -> tuple[RunDir, int, str]:
        run = self.bench.plan("stopped-scored", **RUNS[SCORED])
        life = self.bench.asked_to_stop(run, "evaluation", 2)
        code = life.wait()
        self.bench.start(run, resume=True).finish()
        return run, code, life.said


@pytest.fixture(scope="module")
def stories(bench: Bench, runs: Runs) -> Stories:
    return Stories(bench, runs)


def scores(run: RunDir) -> dict[int, dict[str, Any]]:
    """Step → what the student scored, without the seconds that it took."""
    found = [line for line in metrics(run) if "evaluation" in line]
    assert len({line["step"] for line in found}) == len(found)
    return {line["step"]: {k: v for k, v in line["evaluation"].items() if k != "seconds"} for line in found}


def assert_same_weights(run: RunDir, other: RunDir) -> None:
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []


def best_of(run: RunDir) -> dict[str, Any]:
    return dict(json.loads(run.best.read_text()))


def test_a_run_that_is_scored_learns_bit_for_bit_what_it_else_would(runs, stories):
    assert_same_weights(runs[SCORED], runs[PLAIN])
    losses = [line for line in metrics(runs[SCORED]) if "evaluation" not in line]
    assert losses == metrics(runs[PLAIN])


def test_it_is_scored_before_the_first_step_every_so_many_and_after_the_last(runs, stories):
    found = scores(runs[SCORED])
    assert list(found) == [0, 2, 4, 6]
    for line in found.values():
        assert set(line["bits_per_byte"]["by_language"]) == {"id", "th", "vi"}
        assert set(line["tasks"]["say"]["chrf"]["by_language"]) <= {"id", "th", "vi"}
    values = [line["bits_per_byte"]["all"] for line in found.values()]
    assert values[-1] < values[0] - 0.01


def test_the_best_step_is_named_and_its_checkpoint_is_there(runs, stories):
    run = runs[BEST]
    values = {step: line["bits_per_byte"]["all"] for step, line in scores(run).items() if step > 0}
    best = min(values, key=lambda step: values[step])
    assert best < max(values), "the bench's learning rate is to be too high"
    assert best_of(run) == {
        "step": best, "score": "bits per byte", "value": values[best], "folder": f"checkpoints/step-{best}",
    }  # fmt: skip
    kept = facts(Checkpoint(run.checkpoints / f"step-{best}", best))
    assert kept["evaluation"]["best"] == {"step": best, "value": values[best]}


def test_the_best_step_becomes_the_final_model_with_its_adapter_from_two_shared_out_processes(runs, stories):
    run = runs[BEST]
    best = run.path / best_of(run)["folder"]
    ours, theirs = weights(run), load_file(best / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (run.final / "adapter" / "adapter_model.safetensors").is_file()
    assert not (run.final / "state").exists()
    assert not (run.final / "manifest.json").exists()


def test_two_processes_score_what_one_does(runs, stories):
    """The same student before its first step; sums are added in another order."""
    one, two = leaves(scores(runs[SCORED])[0]), leaves(scores(runs[BEST])[0])
    assert one.keys() == two.keys()
    numbers = [key for key, value in one.items() if isinstance(value, float)]
    assert len(numbers) >= 8
    assert {key: one[key] for key in numbers} == pytest.approx({key: two[key] for key in numbers}, rel=1e-5)


def test_a_killed_run_goes_on_to_the_same_scores_and_the_same_best_step(runs, stories):
    run = stories.killed.result()
    assert scores(run) == scores(runs[SCORED])
    assert best_of(run) == best_of(runs[SCORED])
    assert_same_weights(run, runs[SCORED])


def test_asked_to_stop_while_its_student_is_asked_a_run_saves_and_scores_that_step_when_it_goes_on(runs, stories):
    run, code, said = stories.stopped.result()
    assert code == 128 + signal.SIGINT, said
    assert f"stopped by SIGTERM; saved after step 2 of 6 in {run.checkpoints}/step-2" in " ".join(said.split())
    assert scores(run) == scores(runs[SCORED])
    assert_same_weights(run, runs[SCORED])
