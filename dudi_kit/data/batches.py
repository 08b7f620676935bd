"""The tensors that all models read: prompts padded on the left, responses on the right.

Shapes: B rows, P prompt columns, R response columns, T = P + R. All responses begin in column P, so that a slice of the
logits, one for the whole batch, predicts them: the token in column P + r is predicted at column P − 1 + r. Models that
are called with `logits_to_keep=R + 1` return the last R + 1 columns, P − 1 … T − 1, and `[:, :-1]` of them are the
predictions of the R response tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MULTIPLE = 16
"""Lengths are rounded up to it: a CPU makes new kernels for each new shape, which costs seconds."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts with their responses. Ids and positions are int64, masks bool."""

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    position_ids_BT: Tensor
    """Counted from the first real token of the row; 0 on the padding in front of it."""

    response_ids_BR: Tensor
    """`input_ids_BT[:, P:]`."""

    response_mask_BR: Tensor
    """True on response tokens, the end-of-turn included; from lengths, so that pad may equal eos."""

    @property
    def prompt_columns(self) -> int:
        """P."""
        return self.input_ids_BT.shape[1] - self.response_columns

    @property
    def response_columns(self) -> int:
        """R."""
        return self.response_ids_BR.shape[1]

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        return Batch(
            self.input_ids_BT.to(device),
            self.attention_mask_BT.to(device),
            self.position_ids_BT.to(device),
            self.response_ids_BR.to(device),
            self.response_mask_BR.to(device),
        )


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
    )


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
