"""Where the time of a step goes: every moment is charged to one stage, and measuring changes nothing."""

from contextlib import suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from dudi_kit.errors import Interrupted
from dudi_kit.plan.engine import worker_command
from dudi_kit.plan.layout import RunDir
from dudi_kit.train.clock import NO_CLOCK, Clock, StepClock
from dudi_kit.train.profile import STAGES, Profile, StepTime, profile_table, remarks, rows_of, summed_up
from tests.train.bench import weights

PLAN: Any = SimpleNamespace(name="small", processes=1)


class Now:
    """Time that passes when it is told to."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def passes(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def clock(now: Now) -> StepClock:
    alone = SimpleNamespace(
        device=torch.device("cpu"), process_index=0, is_main_process=True, wait_for_everyone=lambda: None, print=print
    )
    return StepClock(alone, now)  # type: ignore[arg-type]


def test_a_stage_inside_another_is_charged_alone_and_the_rest_is_other(clock, now):
    for _ in clock.steps([0]):
        now.passes(1)
        with clock("loss"):
            now.passes(2)
            with clock("teacher"):
                now.passes(4)
            now.passes(8)
        with clock("loss"):
            now.passes(16)
        now.passes(32)
    (step,) = clock.times
    assert step.seconds == {"other": 33.0, "loss": 26.0, "teacher": 4.0}


def test_a_stage_that_raises_is_charged_and_closed(clock, now):
    for _ in clock.steps([0]):
        with suppress(ZeroDivisionError), clock("data"):
            now.passes(3)
            raise ZeroDivisionError
        now.passes(1)
    assert clock.times[0].seconds == {"data": 3.0, "other": 1.0}


def test_in_a_backward_pass_the_loss_ends_where_the_students_own_part_begins(clock, now):
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, seconds: float) -> torch.Tensor:
            ctx.seconds = seconds
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            now.passes(ctx.seconds)
            return grad, None

    weight = torch.ones(3, requires_grad=True)
    for _ in clock.steps([0]):
        hidden = Slow.apply(weight, 5.0)
        clock.turns(hidden, "loss", "student backward")
        loss = Slow.apply(hidden, 2.0).sum() + Slow.apply(hidden, 1.0).sum()
        with clock("signal gradients"):  # another pass over the same graph turns nothing
            torch.autograd.grad(loss, weight, retain_graph=True)
        with clock("loss"):
            loss.backward()
    assert clock.times[0].seconds == {"other": 0.0, "signal gradients": 8.0, "loss": 3.0, "student backward": 5.0}


def test_a_step_that_is_left_does_not_count_and_what_was_measured_is_kept(clock, now, tmp_path, capsys):
    def train() -> None:
        with clock.kept(run, PLAN):
            for number in clock.steps(range(3, 9)):
                now.passes(1)
                if number == 5:
                    raise Interrupted("stopped")

    run = RunDir(tmp_path)
    with pytest.raises(Interrupted):
        train()
    profile = Profile.model_validate_json(run.profile.read_bytes())
    assert (profile.first_step, profile.last_step) == (4, 5)
    assert "small: seconds of a step" in capsys.readouterr().out


def test_a_run_without_a_whole_step_leaves_no_file(clock, tmp_path, capsys):
    run = RunDir(tmp_path)
    with clock.kept(run, PLAN):
        pass
    assert "no profile" in capsys.readouterr().out
    assert not run.profile.exists()


def test_steps_with_a_shape_that_was_not_read_before_stand_apart(clock, now):
    shapes = [(8, 32), (8, 32), (8, 48), (8, 32)]
    for number in clock.steps(range(4)):
        with clock("student", shapes[number]):
            now.passes(1)
    assert [step.new_shapes for step in clock.times] == [True, False, True, False]


def test_without_a_profile_nothing_is_measured_and_nothing_is_written(tmp_path):
    clock: Clock = NO_CLOCK
    with clock.kept(RunDir(tmp_path), PLAN):
        for _ in clock.steps(range(2)):
            with clock("loss", (1, 2)), clock("teacher"):
                clock.turns(torch.ones(1, requires_grad=True), "loss", "student backward")
                clock.meet()
    assert list(tmp_path.iterdir()) == []


# --- what is made of it


def profile_of(*ranks: list[StepTime]) -> Profile:
    made = [summed_up(number, steps, 10**9) for number, steps in enumerate(ranks)]
    return Profile(name="small", device="cpu", first_step=1, last_step=len(ranks[0]), ranks=made)


def shown(profile: Profile) -> str:
    console = Console(width=120, record=True, file=StringIO())
    console.print(profile_table(profile))
    return " ".join(console.export_text().split())


def test_the_shown_stages_add_up_to_the_step():
    steps = [StepTime({"data": 0.1 * n, "teacher": 1 / 3, "save": n % 2, "other": 1e-5}, n == 0) for n in range(5)]
    *stages, step = rows_of(profile_of(steps).slowest)
    assert [row.stage for row in stages] == ["data", "teacher", "save", "other"]
    assert sum(row.mean for row in stages) == pytest.approx(step.mean)
    assert sum(row.share for row in stages) == pytest.approx(1)
    assert sum(row.new_shapes or 0 for row in stages) == pytest.approx(step.new_shapes)
    text = shown(profile_of(steps))
    assert all(row.stage in text for row in stages)
    assert "steps 1 to 5 (4, and 1 with new shapes); peak memory 1,000 MB" in text


def test_the_slowest_is_who_the_others_wait_for_and_it_is_named():
    quick, slow = StepTime({"teacher": 1.0, "waiting": 2.0}, False), StepTime({"teacher": 2.9, "waiting": 0.1}, False)
    profile = profile_of([quick], [slow])
    assert profile.slowest.rank == 1
    assert remarks(profile)[1].startswith("of rank 1, the slowest of 2 processes: 2.900 s")
    assert "new shapes, mean" not in shown(profile)


# --- a real run


def test_the_option_reaches_the_training_process():
    assert worker_command("run", resume=True, profile=True)[-2:] == ["--resume", "--profile"]
    assert "--profile" not in worker_command("run", resume=False)


def test_a_profiled_run_learns_the_same_and_every_stage_appears(runs):
    runs.start("2x4-zero1", "2x4-zero1-profiled")
    run, watched = runs["2x4-zero1"], runs["2x4-zero1-profiled"]
    assert not run.profile.exists()
    assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in weights(watched).items())
    profile = Profile.model_validate_json(watched.profile.read_bytes())
    assert [rank.rank for rank in profile.ranks] == [0, 1]
    for rank in profile.ranks:
        assert sum(spread.mean for spread in rank.main.stages.values()) == pytest.approx(rank.main.step.mean)
        steps = rank.main.steps + (rank.new_shapes.steps if rank.new_shapes else 0)
        assert steps == 5
    stages = {stage for row in profile.ranks for stage in (*row.main.stages, *(row.new_shapes or row.main).stages)}
    assert stages == {*STAGES} - {"evaluation"}
    log = Path(f"{watched.path}.log").read_text(encoding="utf-8")
    assert "seconds of a step" in log
