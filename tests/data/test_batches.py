import dataclasses

import pytest
import torch

from dudi_kit.data.batches import join, pack


def batch(prompts, responses, **options):
    return join(prompts, responses, pad_id=0, **options)


def test_layout_by_hand():
    b = batch([[1, 2, 3], [4]], [[5], [6, 7]], multiple=2)
    assert b.input_ids_BT.tolist() == [[0, 1, 2, 3, 5, 0], [0, 0, 0, 4, 6, 7]]
    assert b.attention_mask_BT.int().tolist() == [[0, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1]]
    assert b.position_ids_BT.tolist() == [[0, 0, 1, 2, 3, 3], [0, 0, 0, 0, 1, 2]]
    assert b.response_ids_BR.tolist() == [[5, 0], [6, 7]]
    assert b.response_mask_BR.tolist() == [[True, False], [True, True]]
    assert b.response_columns == 2
    assert (b.line_B.tolist(), b.first_B.tolist()) == ([0, 1], [3, 3])


def test_the_column_before_each_response_token_predicts_it():
    b = batch([[1, 2, 3], [4]], [[5, 9], [6, 7, 8]], multiple=1)
    # "Logits" that name the token of their own column: those that predict response token r show the token before it.
    logits = b.input_ids_BT
    kept = logits[:, -(b.response_columns + 1) :][:, :-1]
    assert kept.tolist() == [[3, 5, 9], [4, 6, 7]]


def test_mask_comes_from_lengths_when_pad_is_the_end_of_turn():
    b = batch([[1]], [[5, 0]], multiple=4)
    assert b.response_ids_BR.tolist() == [[5, 0, 0, 0]]
    assert b.response_mask_BR.tolist() == [[True, True, False, False]]


def test_lengths_are_rounded_up_to_the_multiple():
    b = batch([[1] * 17], [[2] * 16])
    assert b.input_ids_BT.shape == (1, 32 + 16)


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
    tensors = [getattr(moved, field.name) for field in dataclasses.fields(moved) if field.name != "is_packed"]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_padding_changes_no_logits_of_a_model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    model = LlamaForCausalLM(config).eval()
    b = batch([[1, 2, 3, 4], [5]], [[6], [7, 8, 9]], multiple=8)
    with torch.no_grad():
        r = b.response_columns
        padded = model(b.input_ids_BT, b.attention_mask_BT, b.position_ids_BT, logits_to_keep=r + 1).logits[:, :-1]
        for row, (prompt, response) in enumerate([([1, 2, 3, 4], [6]), ([5], [7, 8, 9])]):
            alone = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
            torch.testing.assert_close(padded[row, : len(response)], alone)


# --- rows that share lines


def test_packed_layout_by_hand():
    b = pack([[1, 2, 3], [4], [8, 8]], [[5], [6, 7], []], pad_id=0, multiple=2)
    # the longest row fills 4 of 6 columns' first line; the others share what is left
    assert b.input_ids_BT.tolist() == [[1, 2, 3, 5], [4, 6, 7, 0], [8, 8, 0, 0]]
    assert b.position_ids_BT.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0], [0, 1, 0, 1]]
    assert b.attention_mask_BT.int().tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert b.line_B.tolist() == [0, 1, 2]
    assert b.first_B.tolist() == [2, 0, 1]
    assert b.response_ids_BR.tolist() == [[5, 0], [6, 7], [0, 0]]
    assert b.response_mask_BR.tolist() == [[True, False], [True, True], [False, False]]
    assert b.is_packed
    assert not batch([[1]], [[2]]).is_packed


def test_lines_are_filled_by_first_fit_the_longest_rows_first():
    prompts = [[n] * n for n in (2, 8, 3, 5, 1, 4)]
    b = pack(prompts, [[9]] * 6, pad_id=0, multiple=1)
    assert b.input_ids_BT.shape == (4, 9)
    assert b.line_B.tolist() == [1, 0, 2, 1, 3, 2]  # 9 | 6 + 3 | 5 + 4 | 2


def test_what_fills_a_line_counts_no_further_than_the_longest_row():
    """Or it would pass the end of a learned table of positions."""
    b = pack([[1] * 8, [2]], [[3], [4] * 9], pad_id=0, multiple=16)
    assert b.input_ids_BT.shape == (2, 16)
    assert b.position_ids_BT.tolist() == [[*range(10), *range(6)], [*range(9), *range(7)]]
    alone = pack([[1] * 9, [2]], [[3], []], pad_id=0, multiple=16)
    assert alone.position_ids_BT.tolist() == [[*range(10), 0, 0, 1, 2, 3, 4]]
    short = pack([[1] * 5, [2] * 5], [[3], []], pad_id=0, multiple=16)
    assert short.position_ids_BT.tolist() == [[*range(6), *range(5), *range(5)]]
    few = pack([[1] * 3], [[3]], pad_id=0, multiple=16)
    assert few.position_ids_BT.tolist() == [[0, 1, 2, 3] * 4]


@pytest.mark.parametrize("make", [join, pack])
def test_a_batch_says_where_each_response_token_is_predicted(make):
    prompts, responses = [[1, 2, 3], [4], [8] * 9, [6, 5]], [[5, 9], [6, 7, 8], [], [2]]
    b = make(prompts, responses, pad_id=0)
    for line, first, prompt, response in zip(b.line_B, b.first_B, prompts, responses, strict=True):
        read = b.input_ids_BT[line, first : first + len(response) + 1].tolist()
        assert read == [prompt[-1], *response]
    assert int(b.attention_mask_BT.sum()) == sum(map(len, prompts + responses))
