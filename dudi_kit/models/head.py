"""From hidden states to logits, for some positions at a time, so that logits are never held whole where they are large.

Shape suffixes: N positions, n those of a chunk, H hidden, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

Place = slice | Tensor
"""Which positions: a slice, or their numbers."""


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


@dataclass(frozen=True)
class Predictions:
    """What a model predicts at N positions: hidden states and the head that reads them, or logits that are there."""

    rows: Tensor
    """[N, H], or [N, V] where there is no head."""

    head: Head | None = None

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

    def logits(self, place: Place, out_NV: Tensor | None = None) -> Tensor:
        """[n, V] at these positions, detached: with a head written to `out_NV`, else not to be changed."""
        rows = self.rows.detach()[place]
        if self.head is None:
            return rows
        return self.head.logits(rows, None if out_NV is None else out_NV[: len(rows)])

    def room(self, positions: int) -> Tensor | None:
        """A place for the logits of so many positions, to be used again and again; None where none is needed."""
        return None if self.head is None else self.rows.new_empty(min(positions, len(self)), self.pieces)
