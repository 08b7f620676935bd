"""The tensors that all models read: each row a prompt and its response without a gap, padded on the right.

Shapes: B rows, R response columns, L lines, T columns. A row has a line of its own, or shares one with others where
they are packed. What fills a line stands behind its rows, where causal attention never looks: a model needs no mask, so
that attention takes its quickest kernels and keeps no mask of B·T² for backward; and a line is as long as the longest
row, not as the longest prompt and the longest response together. The token in column t is predicted at column t − 1.

Of rows that share a line, transformers is told by their positions, each of which begins at 0. Not every model heeds
them (`models.packing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from dudi_kit.data.sending import sent

MULTIPLE = 16
"""Lengths are rounded up to it: a CPU makes new kernels for each new shape, which costs seconds."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts with their responses. Ids and positions are int64, masks bool."""

    input_ids_LT: Tensor

    position_ids_LT: Tensor | None
    """Of packed rows, counted from the first token of each; what fills a line then counts as further rows, none longer
    than the longest. None where each row has its line: a model counts by itself."""

    response_ids_BR: Tensor

    response_mask_BR: Tensor
    """True on response tokens, the end-of-turn included; from lengths, so that pad may equal eos."""

    line_B: Tensor
    """Where the row lies among the lines."""

    first_B: Tensor
    """Column of its last prompt token, which predicts its first response token."""

    longest: int
    """Tokens of the longest row. Columns from there on hold none."""

    @property
    def is_packed(self) -> bool:
        """Rows share lines."""
        return self.position_ids_LT is not None

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        there: dict[str, Any] = {
            name: sent(value, device) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **there)


def join(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_id: int,
    multiple: int = MULTIPLE,
) -> Batch:
    """Token ids → one batch, a line for each row.

    prompts, responses: one for each row of the batch. A prompt has one token at least, since its last
    one predicts the first of the response; a response may be empty. T and R are rounded up to `multiple`, and R is
    never 0.
    """
    rows = _rows(prompts, responses)
    return _laid(rows, [[row] for row in range(len(rows))], responses, pad_id, multiple)


def pack(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_id: int,
    multiple: int = MULTIPLE,
) -> Batch:
    """The same rows with as little padding as first-fit decreasing leaves: lines as long as the longest row.

    The longest rows are placed first, each into the first line that has room for it.
    """
    rows = _rows(prompts, responses)
    lengths = [len(row) for row in rows]
    lines = _first_fit(lengths, rounded(max(lengths), multiple))
    batch = _laid(rows, lines, responses, pad_id, multiple)
    return replace(batch, position_ids_LT=_positions([[lengths[row] for row in line] for line in lines], batch))


def _rows(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[list[int]]:
    assert len(prompts) == len(responses) > 0, "one of each for every row"
    assert all(prompts), "the last token of a prompt predicts the first of the response"
    return [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]


def _laid(
    rows: Sequence[Sequence[int]],
    lines: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    pad_id: int,
    multiple: int,
) -> Batch:
    """lines: the rows of each, by number."""
    longest = max(map(len, rows))
    ids_LT = torch.full((len(lines), rounded(longest, multiple)), pad_id, dtype=torch.long)
    line_of, first = [0] * len(rows), [0] * len(rows)
    for number, line in enumerate(lines):
        start = 0
        for row in line:
            end = start + len(rows[row])
            ids_LT[number, start:end] = torch.tensor(rows[row])
            line_of[row], first[row] = number, end - len(responses[row]) - 1
            start = end
    ids_BR, mask_BR = pad(responses, pad_id, side="right", multiple=multiple)
    return Batch(
        input_ids_LT=ids_LT,
        position_ids_LT=None,
        response_ids_BR=ids_BR,
        response_mask_BR=mask_BR,
        line_B=torch.tensor(line_of),
        first_B=torch.tensor(first),
        longest=longest,
    )


def _positions(lines: Sequence[Sequence[int]], batch: Batch) -> Tensor:
    """lines: the lengths of each one's rows."""
    position_LT = torch.zeros_like(batch.input_ids_LT)
    for number, line in enumerate(lines):
        left = position_LT.shape[1] - sum(line)
        counted = [*map(torch.arange, line), torch.arange(left) % batch.longest]
        position_LT[number] = torch.cat(counted)
    return position_LT


def rounded(tokens: int, multiple: int = MULTIPLE) -> int:
    """Columns for so many tokens."""
    return -(-tokens // multiple) * multiple


def _first_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Rows by line."""
    lines: list[list[int]] = []
    left: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        number = next((i for i, free in enumerate(left) if free >= lengths[row]), len(lines))
        if number == len(lines):
            lines.append([])
            left.append(room)
        lines[number].append(row)
        left[number] -= lengths[row]
    return lines


def pad(
    sequences: Sequence[Sequence[int]], pad_id: int, *, side: str, multiple: int = MULTIPLE
) -> tuple[Tensor, Tensor]:
    """Ids [B, C] padded on the `left` or `right`, and the mask of what is real; C is rounded up to `multiple`."""
    longest = max(1, *(len(ids) for ids in sequences)) if sequences else 1
    columns = rounded(longest, multiple)
    ids_BC = torch.full((len(sequences), columns), pad_id, dtype=torch.long)
    mask_BC = torch.zeros((len(sequences), columns), dtype=torch.bool)
    for row, ids in enumerate(sequences):
        place = slice(columns - len(ids), columns) if side == "left" else slice(0, len(ids))
        ids_BC[row, place] = torch.tensor(ids, dtype=torch.long)
        mask_BC[row, place] = True
    return ids_BC, mask_BC
