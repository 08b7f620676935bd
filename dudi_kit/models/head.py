"""From hidden states to logits, for some positions at a time, so that logits are never held whole where they are large.

Shape suffixes: N positions, n those of a chunk, H hidden, V vocabulary.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dudi_kit.data.sending import sent

Place = slice | NDArray[np.int64]
"""Which positions: a slice, or their numbers."""


def at(part_N: Tensor, place: Place) -> Tensor:
    """What a tensor has at these positions, its first dimension; a slice costs no copy."""
    return part_N[place if isinstance(place, slice) else sent(place, part_N.device)]


@dataclass(frozen=True)
class Head:
    """logits = cap·tanh(scale·(h·Wᵀ + b) / cap), without the tanh where there is no cap."""

    weight_VH: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    @torch.no_grad()
    def logits(self, hidden_NH: Tensor, out_NV: Tensor | None = None) -> Tensor:
        """[N, V] in the weights' dtype, without a graph; written to `out_NV` where it is given."""
        logits_NV = torch.mm(hidden_NH, self.weight_VH.t(), out=out_NV)
        if self.bias_V is not None:
            logits_NV += self.bias_V
        if self.scale != 1:
            logits_NV *= self.scale
        if self.cap is not None:
            logits_NV.div_(self.cap).tanh_().mul_(self.cap)
        return logits_NV

    def slope_(self, grad_NV: Tensor, logits_NV: Tensor) -> Tensor:
        """∂L/∂logits → ∂L/∂(h·Wᵀ + b), in place: through the cap, by 1 − (logits/cap)², and the scale."""
        if self.cap is not None:
            grad_NV.mul_((logits_NV / self.cap).square_().neg_().add_(1))
        return grad_NV.mul_(self.scale) if self.scale != 1 else grad_NV


class Room:
    """Memory that serves call after call: pages that are new to the process cost more than what is written there."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def of(self, rows: int, pieces: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """[rows, pieces], of any content; valid until the next call. A caller asks for one kind alone."""
        if self._held is None or len(self._held) < rows:
            self._held = None  # before there is more, so that both are not there at once
            self._held = torch.empty(rows, pieces, dtype=dtype, device=device)
        return self._held[:rows]


@dataclass(frozen=True)
class Predictions:
    """What a model predicts at N positions: hidden states and the head that reads them, or logits that are there."""

    rows: Tensor
    """[N, H], or [N, V] where there is no head."""

    head: Head | None = None
    _room: Room = field(default_factory=Room, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pieces(self) -> int:
        """V."""
        return self.rows.shape[1] if self.head is None else len(self.head.weight_VH)

    @property
    def dtype(self) -> torch.dtype:
        """Of the logits."""
        return self.rows.dtype

    @property
    def device(self) -> torch.device:
        """Of the logits."""
        return self.rows.device

    def logits(self, place: Place) -> Tensor:
        """[n, V] at these positions, detached. With a head, valid until the next call; without, not to be changed."""
        rows = at(self.rows.detach(), place)
        if self.head is None:
            return rows
        return self.head.logits(rows, self._room.of(len(rows), self.pieces, self.dtype, self.device))
