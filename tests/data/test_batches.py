import dataclasses
from typing import Any

import pytest
import torch

from dudi_kit.data.batches import Batch, Sharing, join, pack


def batch(prompts, responses, **options):
    return join(prompts, responses, pad_id=0, **options)


def test_layout_by_hand():
    b = batch([[1, 2, 3], [4]], [[5], [6, 7]], multiple=2)
    assert b.input_ids_LT.tolist() == [[1, 2, 3, 5], [4, 6, 7, 0]]
    assert b.position_ids_LT is None
    assert b.response_ids_BR.tolist() == [[5, 0], [6, 7]]
    assert b.response_mask_BR.tolist() == [[True, False], [True, True]]
    assert (b.line_B.tolist(), b.asked_B.tolist()) == ([0, 1], [2, 0])
    assert b.longest == 4


def test_mask_comes_from_lengths_when_pad_is_the_end_of_turn():
    b = batch([[1]], [[5, 0]], multiple=4)
    assert b.response_ids_BR.tolist() == [[5, 0, 0, 0]]
    assert b.response_mask_BR.tolist() == [[True, True, False, False]]


def test_lengths_are_rounded_up_to_the_multiple():
    b = batch([[1] * 17], [[2] * 17])
    assert b.input_ids_LT.shape == (1, 48)
    assert b.response_ids_BR.shape == (1, 32)


def test_a_line_is_as_long_as_the_longest_row_and_not_as_the_longest_prompt_and_response():
    b = batch([[1] * 30, [2]], [[3], [4] * 20], multiple=1)
    assert b.input_ids_LT.shape == (2, 31)


def test_responses_of_one_token_and_of_none():
    b = batch([[1, 2], [3]], [[5], []], multiple=1)
    assert b.response_ids_BR.tolist() == [[5], [0]]
    assert b.response_mask_BR.tolist() == [[True], [False]]
    empty = batch([[1]], [[]], multiple=4)
    assert empty.response_ids_BR.shape == (1, 4)
    assert not empty.response_mask_BR.any()


def test_a_prompt_must_not_be_empty():
    with pytest.raises(AssertionError, match="predicts the first"):
        batch([[]], [[1]])


def test_to_keeps_everything():
    b = batch([[1, 2]], [[3]])
    moved = b.to(torch.device("meta"))
    values = [getattr(moved, field.name) for field in dataclasses.fields(moved)]
    assert {value.device.type for value in values if isinstance(value, torch.Tensor)} == {"meta"}
    assert moved.longest == 3


# --- rows that share lines


def test_packed_layout_by_hand():
    b = pack([[1, 2, 3], [4], [8, 8]], [[5], [6, 7], []], pad_id=0, multiple=2)
    # no two of them fit into a line of 4 columns
    assert b.input_ids_LT.tolist() == [[1, 2, 3, 5], [4, 6, 7, 0], [8, 8, 0, 0]]
    assert not b.is_packed
    b = pack([[1, 2, 3], [4], [8]], [[5], [6, 7], []], pad_id=0, multiple=2)
    assert b.input_ids_LT.tolist() == [[1, 2, 3, 5], [4, 6, 7, 8]]
    assert b.position_ids_LT.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0]]
    assert b.line_B.tolist() == [0, 1, 1]
    assert (b.asked_B.tolist(), b.said_B.tolist()) == ([2, 0, 3], [3, 1, 4])
    assert b.response_ids_BR.tolist() == [[5, 0], [6, 7], [0, 0]]
    assert b.response_mask_BR.tolist() == [[True, False], [True, True], [False, False]]
    assert b.is_packed
    assert b.sees() is None


def test_lines_are_filled_by_first_fit_the_longest_rows_first():
    prompts = [[n] * n for n in (2, 8, 3, 5, 1, 4)]
    b = pack(prompts, [[9]] * 6, pad_id=0, multiple=1)
    assert b.input_ids_LT.shape == (4, 9)
    assert b.line_B.tolist() == [1, 0, 2, 1, 3, 2]  # 9 | 6 + 3 | 5 + 4 | 2


def test_what_fills_a_line_counts_no_further_than_the_longest_row():
    """Or it would pass the end of a learned table of positions."""
    b = pack([[1] * 8, [2], [3] * 5], [[3], [4] * 9, []], pad_id=0, multiple=16)
    assert b.input_ids_LT.shape == (2, 16)
    assert b.position_ids_LT.tolist() == [[*range(10), *range(5), 0], [*range(9), *range(7)]]
    alone = pack([[1] * 9, [2]], [[3], []], pad_id=0, multiple=16)
    assert alone.position_ids_LT.tolist() == [[*range(10), 0, 0, 1, 2, 3, 4]]
    short = pack([[1] * 5, [2] * 5], [[3], []], pad_id=0, multiple=16)
    assert short.position_ids_LT.tolist() == [[*range(6), *range(5), *range(5)]]
    few = pack([[1] * 3, [2]], [[3], []], pad_id=0, multiple=16)
    assert few.position_ids_LT.tolist() == [[0, 1, 2, 3, 0, *([0, 1, 2, 3] * 3)[:11]]]


@pytest.mark.parametrize("make", [join, pack])
def test_a_batch_says_where_each_response_token_is_predicted(make):
    prompts, responses = [[1, 2, 3], [4], [8] * 9, [6, 5]], [[5, 9], [6, 7, 8], [], [2]]
    b = make(prompts, responses, pad_id=0)
    assert [before(b, row) for row in range(4)] == [[3, 5], [4, 6, 7], [], [5]]
    assert b.longest == 9


def before(b: Batch, row: int) -> list[int]:
    """The tokens at which those of the row's response are predicted."""
    columns = b.response_mask_BR[row].nonzero().flatten()
    return b.input_ids_LT[b.predicted_at(torch.full_like(columns, row), columns)].tolist()


# --- rows that share their prompt

WIDE = Sharing(hidden=10_000, window=None)
"""Attention is little beside the layers."""


def shared(make: Any, prompts: list[list[int]], responses: list[list[int]], **options: Any) -> Batch:
    made: Batch = make(prompts, responses, pad_id=0, **{"multiple": 1, "sharing": WIDE} | options)
    return made


def test_shared_layout_by_hand():
    b = shared(join, [[1, 2], [8], [1, 2], [1, 2]], [[5, 6, 7], [9, 4], [], [3, 5]])
    assert b.input_ids_LT.tolist() == [[1, 2, 5, 6, 7, 3, 5], [8, 9, 4, 0, 0, 0, 0]]
    assert b.position_ids_LT.tolist() == [[0, 1, 2, 3, 4, 2, 3], [0, 1, 2, 0, 1, 2, 3]]
    assert b.segment_LT.tolist() == [[0, 0, 1, 1, 1, 3, 3], [4, 5, 5, -1, -1, -1, -1]]
    assert b.prompt_LT.tolist() == [[0, 0, 0, 0, 0, 0, 0], [4, 4, 4, -1, -1, -1, -1]]
    assert (b.line_B.tolist(), b.asked_B.tolist(), b.said_B.tolist()) == ([0, 1, 0, 0], [1, 0, 1, 1], [2, 1, 5, 5])
    assert [before(b, row) for row in range(4)] == [[2, 5, 6], [8, 9], [], [2, 3]]
    assert b.longest == 5


def test_a_response_sees_its_prompt_and_itself_and_nothing_later():
    b = shared(join, [[1, 2], [1, 2]], [[5, 6], [3, 5]], multiple=8)
    rows = ["1.......", "11......", "111.....", "1111....", "11..1...", "11..11..", "......1.", "......11"]
    assert b.sees().int().tolist() == [[[int(c == "1") for c in row] for row in rows]]


def test_blocks_are_packed_like_rows():
    b = shared(pack, [[1, 2], [8], [1, 2], [7]], [[5], [9], [3, 5], []])
    assert b.input_ids_LT.tolist() == [[1, 2, 5, 3, 5], [8, 9, 7, 0, 0]]
    assert b.position_ids_LT.tolist() == [[0, 1, 2, 2, 3], [0, 1, 0, 0, 1]]
    assert [before(b, row) for row in range(4)] == [[2], [8], [2, 3], []]
    assert b.sees()[1, 2:, 2:].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize(
    ("prompt", "responses", "hidden", "shares"),
    [
        (512, (64, 64), 512, True),
        (32, (64, 64), 512, True),
        (32, (256, 256), 512, False),  # the mask costs more than 32 tokens do
        (32, (256, 256), 10_000, True),
        (64, (16, 512), 512, True),  # of two lines, the short row's would be as long as the other
        (512, (16, 512), 512, True),
    ],
)
def test_prompts_are_shared_where_that_is_less_work(prompt, responses, hidden, shares):
    ids = [[1] * prompt] * 2, [[2] * length for length in responses]
    b = join(*ids, pad_id=0, sharing=Sharing(hidden, None))
    assert len(b.input_ids_LT) == (1 if shares else 2)
    alone = join(*ids, pad_id=0)
    assert len(alone.input_ids_LT) == 2
    if not shares:
        assert b.position_ids_LT is None
        assert b.sees() is None


def test_where_no_prompt_comes_twice_nothing_is_shared():
    b = shared(join, [[1, 2], [1, 3]], [[5], [5]])
    assert b.position_ids_LT is None
    assert b.sees() is None
