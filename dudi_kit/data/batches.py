"""The tensors that all models read: prompts padded on the left and responses on the right, or rows packed end to end.

Shapes: B rows, P prompt columns, R response columns, T = P + R. All responses begin in column P, so that a slice of the
logits, one for the whole batch, predicts them: the token in column P + r is predicted at column P − 1 + r. Models that
are called with `logits_to_keep=R + 1` return the last R + 1 columns, P − 1 … T − 1, and `[:, :-1]` of them are the
predictions of the R response tokens.

In a packed batch several rows share a line: L lines, T columns. There is no attention mask: transformers tells the rows
of a line apart by their positions, each of which begins at 0. Not every model does (`models.packing`).
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

    input_ids_BT: Tensor
    """[L, T] where rows are packed."""

    attention_mask_BT: Tensor
    """True on real tokens. Of packed rows a model is not told: it would take them for one row."""

    position_ids_BT: Tensor
    """Counted from the first real token of the row; 0 on the padding in front of it. [L, T] where rows are packed; what
    fills a line then counts as further rows, none longer than the longest."""

    response_ids_BR: Tensor

    response_mask_BR: Tensor
    """True on response tokens, the end-of-turn included; from lengths, so that pad may equal eos."""

    line_B: Tensor
    """Where the row lies among the lines of `input_ids_BT`."""

    first_B: Tensor
    """Column of its last prompt token, which predicts its first response token: P − 1 where rows are padded."""

    is_packed: bool = False
    """Rows share lines."""

    @property
    def response_columns(self) -> int:
        """R."""
        return self.response_ids_BR.shape[1]

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        there: dict[str, Any] = {name: sent(getattr(self, name), device) for name in _TENSORS}
        return replace(self, **there)


_TENSORS = [field.name for field in fields(Batch) if field.name != "is_packed"]


def join(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_id: int,
    multiple: int = MULTIPLE,
) -> Batch:
    """Token ids → one padded batch.

    prompts, responses: one for each row of the batch. A prompt has one token at least, since its last
    one predicts the first of the response; a response may be empty. P and R are rounded up to `multiple`, and R is
    never 0.
    """
    assert len(prompts) == len(responses) > 0, "one of each for every row"
    assert all(prompts), "the last token of a prompt predicts the first of the response"
    left_BP, left_mask_BP = pad(prompts, pad_id, side="left", multiple=multiple)
    right_BR, right_mask_BR = pad(responses, pad_id, side="right", multiple=multiple)
    mask_BT = torch.cat([left_mask_BP, right_mask_BR], dim=1)
    return Batch(
        input_ids_BT=torch.cat([left_BP, right_BR], dim=1),
        attention_mask_BT=mask_BT,
        position_ids_BT=positions(mask_BT),
        response_ids_BR=right_BR,
        response_mask_BR=right_mask_BR,
        line_B=torch.arange(len(prompts)),
        first_B=torch.full((len(prompts),), left_BP.shape[1] - 1),
    )


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
    assert len(prompts) == len(responses) > 0, "one of each for every row"
    assert all(prompts), "the last token of a prompt predicts the first of the response"
    rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    longest = max(map(len, rows))
    columns = -(-longest // multiple) * multiple
    lines = _first_fit([len(row) for row in rows], columns)
    ids_LT = torch.full((len(lines), columns), pad_id, dtype=torch.long)
    mask_LT = torch.zeros((len(lines), columns), dtype=torch.bool)
    position_LT = torch.zeros((len(lines), columns), dtype=torch.long)
    line_B, first_B = (torch.zeros(len(rows), dtype=torch.long) for _ in range(2))
    for number, line in enumerate(lines):
        start = 0
        for row in line:
            place = slice(start, start + len(rows[row]))
            ids_LT[number, place] = torch.tensor(rows[row])
            mask_LT[number, place] = True
            position_LT[number, place] = torch.arange(len(rows[row]))
            line_B[row], first_B[row] = number, start + len(prompts[row]) - 1
            start = place.stop
        position_LT[number, start:] = torch.arange(columns - start) % longest
    ids_BR, mask_BR = pad(responses, pad_id, side="right", multiple=multiple)
    return Batch(ids_LT, mask_LT, position_LT, ids_BR, mask_BR, line_B, first_B, is_packed=True)


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
    """Ids [B, L] padded on the `left` or `right`, and the mask of what is real; L is rounded up to `multiple`."""
    longest = max(1, *(len(ids) for ids in sequences)) if sequences else 1
    columns = -(-longest // multiple) * multiple
    ids_BL = torch.full((len(sequences), columns), pad_id, dtype=torch.long)
    mask_BL = torch.zeros((len(sequences), columns), dtype=torch.bool)
    for row, ids in enumerate(sequences):
        place = slice(columns - len(ids), columns) if side == "left" else slice(0, len(ids))
        ids_BL[row, place] = torch.tensor(ids, dtype=torch.long)
        mask_BL[row, place] = True
    return ids_BL, mask_BL


def positions(mask_BT: Tensor) -> Tensor:
    """Position of each token in its row: the number of real tokens before it, so that left padding shifts nothing."""
    return (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)
