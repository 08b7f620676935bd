"""Which rows are asked together: of like length, none left out."""

import random

import pytest

from dudi_kit.evaluate.batching import LEAST_SHARE, SHORT, of_like_length


@pytest.mark.parametrize("most", [1, 4, 100])
def test_every_row_is_in_one_batch_beside_rows_of_like_length(most: int) -> None:
    lengths = [random.Random(seed).choice((50, 60, 90, 130, 700, 1300)) for seed in range(60)]
    batches = list(of_like_length(lengths, most))
    assert sorted(place for batch in batches for place in batch) == list(range(60))
    assert max(map(len, batches)) <= most
    by_batch = [[lengths[place] for place in batch] for batch in batches]
    assert [length for batch in by_batch for length in batch] == sorted(lengths, reverse=True)
    for batch in by_batch:
        assert min(batch) >= LEAST_SHARE * batch[0] or min(batch) >= batch[0] - SHORT


def test_a_few_long_rows_do_not_pad_the_others() -> None:
    """Two articles among 14 sentences: padded to the longest they would be 20,672 tokens, of which 4,254 are theirs."""
    lengths = [1292, 1162, *[150] * 12, 0, 0]
    batches = list(of_like_length(lengths[:14], 16))
    assert [len(batch) for batch in batches] == [2, 12]
    assert sum(len(batch) * lengths[batch[0]] for batch in batches) == 4384


def test_no_rows_no_batches() -> None:
    assert list(of_like_length([], 4)) == []


def test_what_lies_at_a_place_counts() -> None:
    assert list(of_like_length([9, 9, 9, 9], 4, [2, 3, 1, 4])) == [[0], [1, 2], [3]]
