"""Slices that cover a place."""

import pytest

from dudi_kit.signals.chunks import even_parts, parts


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 25, 100])
def test_even_parts_cover_all_as_few_as_can_be_and_about_as_long(length: int) -> None:
    found = list(even_parts(slice(3, 3 + length), 10))
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(3, 3 + length))
    assert len(found) == -(-length // 10)
    lengths = [part.stop - part.start for part in found]
    assert max(lengths, default=0) <= 10
    assert max(lengths, default=0) - min(lengths, default=0) < max(len(found), 1)


def test_parts_are_full_but_for_the_last() -> None:
    assert list(parts(slice(2, 9), 3)) == [slice(2, 5), slice(5, 8), slice(8, 9)]
