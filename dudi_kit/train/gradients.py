"""How strongly each signal pulls: the norm of its own weighted gradient, and its cosine to the whole gradient.

It is measured over the whole global batch, in a pass of its own over the bare module: the engine's hooks are not
touched, so what is learned does not depend on whether this is measured. Sums are kept in fp32 in main memory, since one
copy of the gradient for each signal would not fit beside the student; only their products are needed in the end.
"""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

PIECE = 1 << 24
"""Parameters whose gradients are on the device at once, for each signal."""


class SignalGradients:
    """Gradients of the signals' shares of the loss, added up over micro-batches."""

    def __init__(self, module: nn.Module, signals: Iterable[str]) -> None:
        self.signals = list(signals)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self._sums = {name: [torch.zeros(p.numel()) for p in self.parameters] for name in self.signals}

    def add(self, name: str, loss: Tensor) -> None:
        """A signal's share of the loss of one micro-batch of one process."""
        grads = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for kept, grad in zip(self._sums[name], grads, strict=True):
            if grad is not None:
                kept += grad.detach().reshape(-1).to("cpu", torch.float32)

    def read_out(self, device: torch.device) -> dict[str, dict[str, float | None]]:
        """{signal: {"norm", "cosine"}} over all processes, each of which must call it.

        With the gradients g_s of the signals, ‖g_s‖² = g_s·g_s, and the cosine of g_s to their sum g is
        Σ_t g_s·g_t / (‖g_s‖ ‖g‖), where ‖g‖² = Σ_st g_s·g_t. None where one of the two is 0.
        """
        products_SS = torch.zeros(len(self.signals), len(self.signals), dtype=torch.float64, device=device)
        for same_parameter in zip(*self._sums.values(), strict=True):
            for piece in zip(*(flat.split(PIECE) for flat in same_parameter), strict=True):
                piece_SP = torch.stack(piece).to(device)
                if dist.is_initialized():
                    dist.all_reduce(piece_SP)
                piece_SP = piece_SP.double()
                products_SS += piece_SP @ piece_SP.T
        return dict(zip(self.signals, _norms(products_SS.tolist()), strict=True))


def _norms(products_SS: Sequence[Sequence[float]]) -> list[dict[str, float | None]]:
    whole = math.sqrt(max(sum(map(sum, products_SS)), 0.0))
    found: list[dict[str, float | None]] = []
    for i, row in enumerate(products_SS):
        norm = math.sqrt(row[i])
        found.append({"norm": norm, "cosine": sum(row) / (norm * whole) if norm * whole > 0 else None})
    return found
