"""Fixed draws."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dudi_kit.evaluate.subset import interleaved, stratified

ROWS = [(f"{label}{i}", label) for label, count in (("a", 70), ("b", 25), ("c", 5)) for i in range(count)]


def draw(limit: int, seed: int = 0) -> list[tuple[str, str]]:
    return stratified(ROWS, limit, key=lambda row: row[0], stratum=lambda row: row[1], seed=seed)


def test_shares_are_kept() -> None:
    assert Counter(label for _, label in draw(20)) == {"a": 14, "b": 5, "c": 1}


def test_every_label_is_there_while_there_is_room() -> None:
    assert Counter(label for _, label in draw(3)) == {"a": 1, "b": 1, "c": 1}


@given(st.integers(1, 120), st.integers(0, 5))
def test_the_number_is_met_in_the_rows_own_order(limit: int, seed: int) -> None:
    found = draw(limit, seed)
    assert len(found) == min(limit, len(ROWS))
    assert found == [row for row in ROWS if row in set(found)]


def test_removing_a_row_moves_no_other() -> None:
    kept = draw(20)
    without = next(row for row in ROWS if row not in kept)
    rows = [row for row in ROWS if row != without]
    again = stratified(rows, 20, key=lambda row: row[0], stratum=lambda row: row[1], seed=0)
    assert len(set(again) & set(kept)) >= 19


def test_the_first_examples_show_every_label() -> None:
    order = interleaved(ROWS, key=lambda row: row[0], stratum=lambda row: row[1], seed=0)
    assert [label for _, label in order[:6]] == ["a", "b", "c"] * 2
    assert sorted(order) == sorted(ROWS)
