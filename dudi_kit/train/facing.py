"""The token signal where student and teacher have different tokens: which face each other, and what is compared.

Tokens that face one of the same meaning are compared by their distributions, over the buckets of the vocabulary
mapping; spans by their likelihoods. Shape suffixes: B rows, R the student's response columns, Q the teacher's,
V vocabulary, S spans.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dudi_kit.data.batches import pad
from dudi_kit.signals.divergences import Divergence
from dudi_kit.signals.logprobs import token_logprobs
from dudi_kit.signals.meeting import Meet
from dudi_kit.signals.result import SignalResult, Sums
from dudi_kit.signals.spans import SpanLogprobs, sum_spans
from dudi_kit.signals.token import facing_signal
from dudi_kit.verbalizer.vocabulary.reading import Reading


class Facing(NamedTuple):
    """Which columns of a batch face each other; −1 where a column faces none."""

    teacher_column_BR: Tensor
    """Teacher's column of each student token that is paired."""

    student_span_BR: Tensor
    """Number of the span that a student token is in."""

    teacher_span_BQ: Tensor
    row_S: Tensor
    """Row of each span."""

    def to(self, device: torch.device) -> "Facing":
        """On another device."""
        return Facing(*(part.to(device) for part in self))


def facing(readings: Sequence[Reading], columns: int, teacher_columns: int) -> Facing:
    """The alignments of a batch's rows as tensors. columns: R; teacher_columns: Q."""
    column_BR = np.full((len(readings), columns), -1)
    span_BR = np.full((len(readings), columns), -1)
    teacher_span_BQ = np.full((len(readings), teacher_columns), -1)
    row_S: list[int] = []
    for row, (_, alignment) in enumerate(readings):
        column_BR[row, alignment.paired_F2[:, 0]] = alignment.paired_F2[:, 1]
        for first, end, teacher_first, teacher_end in alignment.spans_S4.tolist():
            span_BR[row, first:end] = len(row_S)
            teacher_span_BQ[row, teacher_first:teacher_end] = len(row_S)
            row_S.append(row)
    rows = torch.tensor(row_S, dtype=torch.long)
    return Facing(torch.from_numpy(column_BR), torch.from_numpy(span_BR), torch.from_numpy(teacher_span_BQ), rows)


class Compared(NamedTuple):
    """Both sides of one term of a micro-batch."""

    student_logits_BRV: Tensor
    teacher_logits_BQV: Tensor
    response_ids_BR: Tensor
    """The student's tokens."""

    readings: Sequence[Reading]
    """Each row's response as the teacher read it."""


@dataclass(frozen=True)
class FacingSignal:
    """Computes a token signal between two vocabularies."""

    divergence: Divergence
    """Of logits over the same buckets, at temperature 1."""

    temperature: float
    """Both models' logits are divided by it, for distributions and likelihoods alike."""

    spans: Callable[[SpanLogprobs], Tensor]
    """Compares the likelihoods of spans."""

    meet: Meet

    def __call__(self, compared: Compared) -> SignalResult:
        """Sums over both kinds of tokens; the count is the number of student tokens that the teacher has a word on."""
        student_BRV, teacher_BQV, _, readings = compared
        faces = facing(readings, student_BRV.shape[1], teacher_BQV.shape[1]).to(student_BRV.device)
        paired = facing_signal(
            student_BRV,
            teacher_BQV,
            faces.teacher_column_BR,
            self.divergence,
            self.meet,
            temperature=self.temperature,
        )
        spans = self._spans(compared, faces)
        shares = {"full": paired.count_B, "span": spans.count_B}
        tokens_B = torch.tensor([reading.alignment.tokens for reading in readings], device=student_BRV.device)
        return SignalResult(
            total_B=paired.total_B + spans.total_B,
            count_B=paired.count_B + spans.count_B,
            metrics={
                **paired.metrics,
                "span_loss": Sums(spans.total_B.detach(), spans.count_B),
                **{f"coverage_{name}": Sums(count_B.double(), tokens_B) for name, count_B in shares.items()},
            },
        )

    def _spans(self, compared: Compared, faces: Facing) -> Sums:
        """Total and number of student tokens, by row."""
        student_BRV, teacher_BQV, ids_BR, readings = compared
        teacher_ids_BQ = _teacher_ids(readings, teacher_BQV)
        number = len(faces.row_S)
        logprobs = partial(token_logprobs, temperature=self.temperature)
        mine = logprobs(student_BRV, ids_BR, faces.student_span_BR >= 0)
        theirs = logprobs(teacher_BQV, teacher_ids_BQ, faces.teacher_span_BQ >= 0)
        value_S = self.spans(
            SpanLogprobs(
                sum_spans(mine, faces.student_span_BR, number), sum_spans(theirs, faces.teacher_span_BQ, number)
            )
        )
        total_B = value_S.new_zeros(len(readings)).index_add(0, faces.row_S, value_S)
        return Sums(total_B, (faces.student_span_BR >= 0).sum(-1))


def _teacher_ids(readings: Sequence[Reading], teacher_BQV: Tensor) -> Tensor:
    ids_BQ, _ = pad([reading.ids for reading in readings], 0, side="right", multiple=1)
    wide_BQ = ids_BQ.new_zeros(teacher_BQV.shape[:2])
    wide_BQ[:, : ids_BQ.shape[1]] = ids_BQ
    return wide_BQ.to(teacher_BQV.device)
