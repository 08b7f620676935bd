"""Learning rates by hand."""

import pytest

from dudi_kit.recipe.schema.training import Training
from dudi_kit.train.schedule import learning_rate


def rates(steps: int, **settings: object) -> list[float]:
    training = Training(learning_rate=8.0, **settings)  # type: ignore[arg-type]
    return [learning_rate(training, step, steps) for step in range(steps)]


def test_constant_without_warmup():
    assert rates(3, schedule="constant", warmup=0.0) == [8.0, 8.0, 8.0]


def test_linear_falls_towards_0_which_the_step_after_the_last_would_have():
    assert rates(4, schedule="linear", warmup=0.0) == [8.0, 6.0, 4.0, 2.0]


def test_cosine_by_hand():
    # ½·8·(1 + cos(k·π/4)) for k = 0…3: 8, 4 + 2√2, 4, 4 − 2√2
    assert rates(4, schedule="cosine", warmup=0.0) == pytest.approx([8.0, 6.8284271247, 4.0, 1.1715728753])


def test_warmup_rises_linearly_and_never_starts_at_0():
    # 3 of 6 steps rise: 8·1/4, 8·2/4, 8·3/4; then the peak
    assert rates(6, schedule="constant", warmup=0.5) == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]


def test_after_the_warmup_the_course_has_only_the_steps_that_are_left():
    assert rates(6, schedule="linear", warmup=0.5)[3:] == pytest.approx([8.0, 16 / 3, 8 / 3])


def test_the_default_warmup_of_a_short_run_is_no_step_at_all():
    assert rates(5, schedule="constant") == [8.0] * 5


def test_warmup_alone():
    assert rates(3, schedule="cosine", warmup=1.0) == [2.0, 4.0, 6.0]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_run_of_one_step_uses_the_peak(schedule):
    assert rates(1, schedule=schedule) == [8.0]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_rates_are_positive_at_every_step_and_reach_the_peak(schedule):
    for steps in (1, 2, 7, 100):
        values = rates(steps, schedule=schedule, warmup=0.1)
        assert min(values) > 0
        assert max(values) == pytest.approx(8.0)
