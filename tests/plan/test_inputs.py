"""The largest inputs are those of the rows as training will batch them."""

from dudi_kit.data.batches import Sharing
from dudi_kit.data.mixing import Mixture
from dudi_kit.plan.arithmetic import Arithmetic
from dudi_kit.plan.inputs import Sharings, largest_inputs
from dudi_kit.plan.job import Inputs
from dudi_kit.plan.rows import Row


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


def test_pairs_that_share_their_prompt_lie_in_one_line() -> None:
    """The teacher's prompts are alike in the second row only."""
    rows = [row(0, 60, 3, 20), row(1, 61, 30, 1)]
    wide = Sharing(10_000, None)
    first, second = made(rows, batches(1, 1, 2), sharings=Sharings(wide, wide))
    assert {(one.shared, one.teacher_shared) for one in (first, second)} == {(80, 0), (112, 48)}
    assert [one.shared for one in made(rows, batches(1, 2, 2), sharings=Sharings(wide, wide))] == [112]
    assert [one.shared for one in made(rows, batches(1, 2, 2), sharings=Sharings(Sharing(4, None), None))] == [0]


def test_where_prompts_are_shared_another_one_exceeds_nothing_where_they_are_not() -> None:
    """Fewer tokens lie in more lines there."""
    rows = [row(0, 4, 40, 1), row(1, 90, 45, 1)]
    made_of = made(rows, batches(1, 1, 2), sharings=Sharings(Sharing(8, None), None))
    assert sorted(one.shared for one in made_of) == [0, 160]
