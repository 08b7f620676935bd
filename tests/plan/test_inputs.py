"""The largest inputs are those of the rows as training will batch them."""

import random
from dataclasses import replace
from typing import Any, cast

import pytest
from transformers import BloomConfig, Qwen3Config

from dudi_kit.data.batches import Sharing, join
from dudi_kit.data.mixing import Mixture
from dudi_kit.plan.arithmetic import Arithmetic
from dudi_kit.plan.inputs import Sharings, largest_inputs
from dudi_kit.plan.job import ANY, Inputs
from dudi_kit.plan.loss_memory import student_lines
from dudi_kit.plan.rows import Row
from dudi_kit.plan.sizes import sharings_of
from dudi_kit.plan.teaching import Teaching
from tests.plan.test_memory import JOB


def row(index: int, prompt: int, response: int, teacher: int) -> Row:
    return Row(index, "th", "d", [1] * prompt, [1] * response, {"off_policy": [1], "on_policy": [1] * teacher})


def batches(processes: int, micro: int, rows: int) -> Arithmetic:
    return Arithmetic(processes, rows, micro, rows // processes // micro, rows, 1)


APART = Sharings(None, None)


def made(rows: list[Row], numbers: Arithmetic, at_once: int = 4, sharings: Sharings = APART) -> tuple[Inputs, ...]:
    return largest_inputs(rows, Mixture([("th", "d")] * len(rows), {}), numbers, 16, at_once, sharings)


def test_columns_are_padded_and_rows_of_like_length_share_a_micro_batch() -> None:
    rows = [row(0, 5, 3, 20), row(1, 100, 3, 120), row(2, 6, 40, 20), row(3, 7, 3, 200)]
    # Sorted by the longest prompt and answer: 36, 60, 136, 216 tokens.
    small, large = made(rows, batches(1, 2, 4))
    assert small == Inputs(
        rows=2, prompt=16, response=48, row=48, teacher_prompt=32, teacher_row=48, sampled_rows=4, sampled_prompt=112
    )
    assert large == Inputs(
        rows=2, prompt=112, response=16, row=112, teacher_prompt=208, teacher_row=16, sampled_rows=4, sampled_prompt=112
    )


def test_what_another_one_exceeds_is_left_out() -> None:
    rows = [row(i, 10 * (i + 1), 10 * (i + 1), 10 * (i + 1)) for i in range(4)]
    (largest,) = made(rows, batches(1, 1, 4))
    assert largest == Inputs(
        rows=1, prompt=48, response=48, row=80, teacher_prompt=48, teacher_row=48, sampled_rows=4, sampled_prompt=48
    )


WIDE = Sharing(10_000, None)


def test_how_long_a_rollout_has_pairs_lie_apart() -> None:
    """The teacher's prompts are alike in the second row only."""
    rows = [row(0, 60, 3, 20), row(1, 61, 30, 1)]
    both = made(rows, batches(1, 1, 2), sharings=Sharings(WIDE, WIDE))
    assert sorted((one.apart, one.teacher_apart) for one in both) == [(0, 0), (0, ANY)]
    for sharing, apart in ((WIDE, 0), (Sharing(4, None), 16), (Sharing(10_000, 90), 16), (None, ANY)):
        (one,) = made(rows, batches(1, 2, 2), sharings=Sharings(sharing, None))
        assert (one.apart, one.teacher_apart) == (apart, ANY)


@pytest.mark.parametrize("seed", range(40))
def test_no_rollout_has_training_lay_out_more_than_the_plan_says(seed: int) -> None:
    """y and ỹ of one length fill two lines best: a shorter rollout may take more columns than the longest."""
    draw = random.Random(seed)
    hidden, new_tokens = draw.choice((64, 256, 512, 1024)), draw.choice((48, 128, 512, 1000))
    part = [row(i, draw.randint(4, 600), draw.randint(1, 700), 1) for i in range(draw.randint(1, 4))]
    sharing = Sharing(hidden, draw.choice((None, None, 900)))
    mixture, numbers = Mixture([("th", "d")] * len(part), {}), batches(1, len(part), len(part))
    (planned,) = largest_inputs(part, mixture, numbers, new_tokens, 4, Sharings(sharing, None))
    job = replace(JOB, new_tokens=new_tokens, sharing=sharing)
    lines, columns = student_lines(job, planned)
    most = 0
    for rollout in range(1, new_tokens + 1, 7):
        prompts, responses = [r.prompt for r in part] * 2, [r.response for r in part] + [[1] * rollout] * len(part)
        batch = join(
            [[*ids, i] for i, ids in enumerate(prompts[: len(part)])] * 2, responses, pad_id=0, sharing=sharing
        )
        most = max(most, batch.input_ids_LT.numel())
    assert most <= lines * (columns + 16)  # a token more of each prompt, to tell them apart


def test_only_who_reads_both_responses_at_once_shares_prompts() -> None:
    ours, theirs = Qwen3Config(hidden_size=512), Qwen3Config(hidden_size=1024)
    teaching = Teaching(*[cast("Any", None)] * 4, config=theirs)
    student, teacher = Sharing(512, None), Sharing(1024, None)
    assert sharings_of(JOB, ours, teaching) == (student, teacher)
    assert sharings_of(replace(JOB, cache="top_k"), ours, teaching) == (student, None)
    assert sharings_of(replace(JOB, signals=frozenset({"sequence", "off_policy"})), ours, teaching) == (student, None)
    assert sharings_of(replace(JOB, signals=frozenset({"off_policy"})), ours, teaching) == (None, None)
    assert sharings_of(replace(JOB, teacher=None, signals=frozenset({"sequence"})), ours, None) == (student, None)
    assert sharings_of(JOB, BloomConfig(), teaching) == (None, teacher)
