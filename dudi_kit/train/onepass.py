"""The loss over the student's predictions and its gradient, in one pass over chunks of positions.

The gradient is computed with the loss, chunk by chunk, while the logits are there: so each chunk costs three products
with the head's weights, as it does where logits are held whole (logits, gradient of the hidden states, gradient of the
weights). What is needed for it is the weight of each term in the loss, which is known beforehand (global counts), but
for terms that are no sum over positions: a preference between two responses, or a span. Their weights depend on the
log-probabilities of a *group* of positions. A group that fits into a chunk is judged while its logits are there, and
chunks are half as long again for it; for one that doesn't they are computed a second time.

Memory: logits of a chunk of each model, the strip's temporaries, and the gradients of rows and weights, in fp32 until
the backward.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dudi_kit.models.head import Head, Predictions
from dudi_kit.signals.chunks import even_parts, parts

SLICE_ELEMENTS = 2**21
"""Weights whose gradient is added up at a time, where it is made in half precision and kept in fp32: few enough that
both copies stay in memory that is there already (2^23 of them take three times as long)."""


class Judge(Protocol):
    """What the pass asks at each chunk. Places are slices of the N positions."""

    @property
    def listens(self) -> bool:
        """Some term depends on a whole group's log-probabilities."""
        ...

    def hear(self, logits_nV: Tensor, place: slice) -> None:
        """Note the log-probabilities of this part of a group."""
        ...

    def weigh(self, group: slice) -> None:
        """All of the group has been heard."""
        ...

    def judge(self, logits_nV: Tensor, place: slice, out_nV: Tensor | None) -> None:
        """Note the losses. Write ∂L/∂logits to `out_nV`, where it is wanted; that may be `logits_nV` itself."""
        ...

    def loss(self) -> Tensor:
        """Sum over all positions, a scalar, once all have been judged."""
        ...


def loss_in_one_pass(student: Predictions, groups: Sequence[slice], judge: Judge, size: int) -> Tensor:
    """The judge's loss, with its gradient to the student's rows and to its head's weights where they learn.

    groups: consecutive slices that cover all positions. size: positions of a chunk at most.
    """
    head = student.head or Head(student.rows.new_empty(0))
    loss: Tensor = _OnePass.apply(student.rows, head.weight_VH, head.bias_V, student, groups, judge, size)  # type: ignore[no-untyped-call]
    return loss


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_NX: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        student: Predictions,
        groups: Sequence[slice],
        judge: Judge,
        size: int,
    ) -> Tensor:
        learns = tuple(ctx.needs_input_grad[:3])
        ctx.gradient = _Gradient(student, learns)
        for group in groups:
            chunks = list(even_parts(group, size))
            heard = logits_nV = None  # those of the group before leave their room
            for chunk in chunks if judge.listens else ():
                heard = student.logits(chunk)
                judge.hear(heard, chunk)
            judge.weigh(group)
            for chunk in chunks:
                again = heard is None or len(chunks) > 1
                logits_nV = student.logits(chunk) if again else heard
                ctx.gradient.take(judge, logits_nV, chunk)
        return judge.loss()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.gradient.times(grad), None, None, None, None


class _Gradient:
    """∂L/∂rows, ∂L/∂W and ∂L/∂b, added up over chunks."""

    def __init__(self, student: Predictions, learns: tuple[bool, ...]) -> None:
        self.student, self.head = student, student.head
        wants_rows, wants_weight, wants_bias = learns
        self.rows_NX = torch.zeros_like(student.rows) if wants_rows else None
        self.weight_VH = _zeros(self.head.weight_VH) if self.head and wants_weight else None
        self.bias_V = _zeros(self.head.bias_V) if self.head and wants_bias and self.head.bias_V is not None else None
        self.used = False

    def take(self, judge: Judge, logits_nV: Tensor, chunk: slice) -> None:
        """Judge a chunk and carry its gradient on to the rows and the head."""
        if self.head is None:
            judge.judge(logits_nV, chunk, None if self.rows_NX is None else self.rows_NX[chunk])
            return
        judge.judge(logits_nV, chunk, logits_nV)  # the logits make place for their gradient
        if self.rows_NX is not None:
            torch.mm(logits_nV, self.head.weight_VH, out=self.rows_NX[chunk])
        if self.weight_VH is not None:
            self._add_weight(self.weight_VH, logits_nV, self.student.rows.detach()[chunk])
        if self.bias_V is not None:
            self.bias_V += logits_nV.sum(0, dtype=self.bias_V.dtype)

    def _add_weight(self, weight_VH: Tensor, grad_nV: Tensor, hidden_nH: Tensor) -> None:
        if weight_VH.dtype == grad_nV.dtype:
            weight_VH.addmm_(grad_nV.t(), hidden_nH)
            return
        for pieces in parts(slice(0, len(weight_VH)), max(1, SLICE_ELEMENTS // weight_VH.shape[1])):
            weight_VH[pieces] += grad_nV[:, pieces].t() @ hidden_nH

    def times(self, factor: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of rows, weights and bias times what the loss is multiplied with; they are used up."""
        assert not self.used, "a backward through the loss for a second time"
        self.used = True
        found = (self.rows_NX, self.weight_VH, self.bias_V)
        self.rows_NX = self.weight_VH = self.bias_V = None  # or autograd would copy what somebody else still holds
        dtype = self.student.dtype
        return tuple(None if each is None else each.mul_(factor.to(each.dtype)).to(dtype) for each in found)


def _zeros(like: Tensor) -> Tensor:
    """Where a sum over chunks is kept: in fp32 or better."""
    return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))
