"""Fixed draws from a task's rows: the same rows on every machine, whatever order they are read in.

Rows are ordered by a hash of seed and id instead of by a random generator: adding or removing a row moves no other one,
and a smaller draw is a part of a larger one as far as the labels' shares allow.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

T = TypeVar("T")


def stratified(
    rows: Sequence[T], limit: int, *, key: Callable[[T], str], stratum: Callable[[T], str | None], seed: int
) -> list[T]:
    """At most `limit` rows in their own order; every stratum keeps its share, and one row at least while there is room.

    key: what names a row. stratum: its label; None for all where there are none.
    """
    if limit >= len(rows):
        return list(rows)
    groups = _groups(rows, key, stratum, seed)
    shares = _shares({name: len(group) for name, group in groups.items()}, limit)
    taken = {key(row) for name, group in groups.items() for row in group[: shares[name]]}
    return [row for row in rows if key(row) in taken]


def interleaved(
    rows: Sequence[T], *, key: Callable[[T], str], stratum: Callable[[T], str | None], seed: int
) -> list[T]:
    """All rows, drawn in turn from each stratum: the first k show as many labels as k rows can."""
    groups = _groups(rows, key, stratum, seed)
    turns = zip_longest(*(groups[name] for name in sorted(groups)))
    return [row for row in chain.from_iterable(turns) if row is not None]


def _groups(
    rows: Sequence[T], key: Callable[[T], str], stratum: Callable[[T], str | None], seed: int
) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: hashlib.sha256(f"{seed}\0{key(row)}".encode()).digest()):
        groups[stratum(row) or ""].append(row)
    return groups


def _shares(sizes: dict[str, int], limit: int) -> dict[str, int]:
    """Largest remainders; a stratum that would get nothing takes a row from the largest one."""
    total = sum(sizes.values())
    exact = {name: limit * size / total for name, size in sizes.items()}
    shares = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: limit - sum(shares.values())]:
        shares[name] += 1
    for name in sorted(name for name, share in shares.items() if share == 0)[:limit]:
        largest = max(shares, key=lambda other: (shares[other], other))
        if shares[largest] > 1:
            shares[largest] -= 1
            shares[name] = 1
    return shares
