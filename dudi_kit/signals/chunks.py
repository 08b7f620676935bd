"""Row-wise functions of logits, applied a few rows at a time, so that fp32 temporaries never span the whole batch.

Where the memory goes, for N valid positions and V pieces: the logits themselves (the caller's, in the caller's dtype),
one gradient of their shape and dtype in the backward, and a handful of fp32 temporaries of `CHUNK_ELEMENTS` elements.
Nothing else is as large as N·V: values are computed without a graph in the forward, and once more, with their
gradient, in the backward. Rows that are not valid are never read, so that they cost nothing and may hold anything.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

RowFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits[n, V], other[n, ...]) → values[n, ...], row by row, differentiable in the logits; n may be 0."""

CHUNK_ELEMENTS = 2**22
"""Tokens × vocabulary of a chunk by default: 16 MiB for each fp32 temporary, 27 tokens at V = 151,936."""


def chunked(
    function: RowFunction, logits: Tensor, other: Tensor, chunk: int | None = None, *, mask: Tensor | None = None
) -> Tensor:
    """`function(logits[mask], other[mask])`, `chunk` rows at a time; the gradient goes to `logits` only.

    logits [..., V], other [...] or [..., V], mask [...] bool (all rows where None) → values [valid rows, ...].
    chunk: rows at a time; by default as many as fit into `CHUNK_ELEMENTS`.
    """
    if mask is None:
        mask = torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device)
    rows = chunk or max(1, CHUNK_ELEMENTS // logits.shape[-1])
    index = mask.bool().nonzero(as_tuple=True)
    values: Tensor = _Chunked.apply(logits, other, function, rows, *index)  # type: ignore[no-untyped-call]
    return values


def at_least_fp32(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype to compute in: float32, or float64 where an input has it."""
    widest = torch.float32
    for dtype in dtypes:
        widest = torch.promote_types(widest, dtype)
    return widest


class _Chunked(torch.autograd.Function):
    """Recomputes in the backward and writes into one gradient tensor.

    Checkpointing slices would allocate a full gradient for each slice (or, with `split`, its pieces and their
    concatenation), which is why this is a function of its own.
    """

    @staticmethod
    def forward(  # the index tensors (one for each leading dimension) say which rows are valid
        ctx: Any, logits: Tensor, other: Tensor, function: RowFunction, chunk: int, *index: Tensor
    ) -> Tensor:
        ctx.function, ctx.chunk = function, chunk
        ctx.save_for_backward(logits, other, *index)
        return torch.cat([function(logits[rows].detach(), other[rows]) for _, rows in _slices(index, chunk)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        logits, other, *index = ctx.saved_tensors
        grad = torch.zeros_like(logits)
        for span, rows in _slices(tuple(index), ctx.chunk):
            with torch.enable_grad():
                some = logits[rows].detach().requires_grad_()
                values = ctx.function(some, other[rows])
            (grad[rows],) = torch.autograd.grad(values, some, grad_N[span])
        return grad, None, None, None, *(None for _ in index)


def _slices(index: tuple[Tensor, ...], chunk: int) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    """Successive `chunk` entries of the index: their place in the output and where they stand in the input.

    Of an empty index one empty slice, so that the function says what shape its values have.
    """
    for start in range(0, max(1, len(index[0])), chunk):
        span = slice(start, start + chunk)
        yield span, tuple(positions[span] for positions in index)
