"""How a process's share of a step is cut: rows of like length share a micro-batch, so that little is padded.

The global mean does not depend on it.
"""

from collections.abc import Iterable, Iterator, Sequence

from dudi_kit.train.step import Pair


def by_length(pairs: Iterable[Pair]) -> list[Pair]:
    """The shortest first."""
    return sorted(pairs, key=_tokens)


def batched(pairs: Sequence[Pair], size: int) -> Iterator[Sequence[Pair]]:
    """Consecutive slices of `size`."""
    return (pairs[start : start + size] for start in range(0, len(pairs), size))


def _tokens(pair: Pair) -> int:
    """The most that any model reads of a pair."""
    row, rollout, reading = pair
    prompt = max(len(ids) for ids in (row.prompt, *row.teacher_prompts.values()))
    responses = [
        row.response,
        rollout.ids if rollout else [],
        *(heard.ids for heard in (row.reading, reading) if heard),
    ]
    return prompt + max(map(len, responses))
