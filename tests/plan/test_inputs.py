"""The largest inputs are those of the rows as training will batch them."""

from dudi_kit.data.mixing import Mixture
from dudi_kit.plan.arithmetic import Arithmetic
from dudi_kit.plan.inputs import largest_inputs
from dudi_kit.plan.job import Inputs
from dudi_kit.plan.rows import Row


def row(index: int, prompt: int, response: int, teacher: int) -> Row:
    return Row(index, "th", "d", [1] * prompt, [1] * response, {"off_policy": [1], "on_policy": [1] * teacher})


def batches(processes: int, micro: int, rows: int) -> Arithmetic:
    return Arithmetic(processes, rows, micro, rows // processes // micro, rows, 1)


def made(rows: list[Row], numbers: Arithmetic, at_once: int = 4) -> tuple[Inputs, ...]:
    return largest_inputs(rows, Mixture([("th", "d")] * len(rows), {}), numbers, 16, at_once)


def test_columns_are_padded_and_rows_of_like_length_share_a_micro_batch() -> None:
    rows = [row(0, 5, 3, 20), row(1, 100, 3, 120), row(2, 6, 40, 20), row(3, 7, 3, 200)]
    # Sorted by the longest prompt and answer: 36, 60, 136, 216 tokens.
    assert made(rows, batches(1, 2, 4)) == (
        Inputs(
            2, 16, 16, 48, 48, teacher_prompt=32, teacher_uneven=32, teacher_row=64, sampled_rows=4, sampled_prompt=112
        ),
        Inputs(
            2,
            112,
            96,
            16,
            112,
            teacher_prompt=208,
            teacher_uneven=208,
            teacher_row=208,
            sampled_rows=4,
            sampled_prompt=112,
        ),
    )


def test_what_another_one_exceeds_is_left_out() -> None:
    rows = [row(i, 10 * (i + 1), 10 * (i + 1), 10 * (i + 1)) for i in range(4)]
    assert made(rows, batches(1, 1, 4)) == (
        Inputs(
            1, 48, 0, 48, 80, teacher_prompt=48, teacher_uneven=48, teacher_row=80, sampled_rows=4, sampled_prompt=48
        ),
    )
