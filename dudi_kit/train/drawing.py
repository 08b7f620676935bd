"""Which piece comes next: the likeliest, or a draw by a number of the row's own; never one that must not be said.

A draw over a large vocabulary is made in two levels, so that it is passed over as few times as can be: a copy in fp32,
the softmax, the sums of blocks. What remains to be cumulated in fp64 is a number for each block, and the pieces of the
one block that the draw falls into. The copies lie in the same memory at every token: where the C library maps new pages
for each, their faults cost more than the arithmetic.
Shape suffixes: B prompts of a call, b rows still in the batch, N new tokens, V vocabulary, K pieces up to the last that
may be said, S blocks, C pieces of a block.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from dudi_kit.data.sending import sent
from dudi_kit.train.determinism import running_sum

BLOCK = 512
"""Pieces whose mass is summed to one number."""

HEAD = 1024
"""Pieces that are sorted for `top_p`; where they hold too little mass, all are: 50 times the work at V = 151,936."""


class Sayable:
    """The pieces that may be said: those that the teacher can read, and no padded rows."""

    def __init__(self, sayable_V: Tensor) -> None:
        self.end = int(sayable_V.nonzero().max()) + 1
        self.never = (~sayable_V[: self.end]).nonzero().squeeze(-1)
        self._fitted: tuple[int, torch.device] | None = None

    def copy(self, logits_bV: Tensor, into_BV: Tensor) -> Tensor:
        """The logits up to the last piece that may be said, in fp32: [b, K]; of the others there, −inf."""
        pieces = min(self.end, logits_bV.shape[1])
        logits_bK = into_BV.view(-1)[: len(logits_bV) * pieces].view(-1, pieces).copy_(logits_bV[:, :pieces])
        if self._fitted != (pieces, logits_bV.device):  # once: at every token the host would wait for the GPU
            self.never = sent(self.never[self.never < pieces], logits_bV.device)
            self._fitted = pieces, logits_bV.device
        return logits_bK.index_fill_(1, self.never, -torch.inf)


class Likeliest:
    """Greedy among what may be said."""

    def __init__(self, sayable: Sayable) -> None:
        self.sayable = sayable
        self._copy_BV = torch.empty(0)

    def __call__(self, logits_bV: Tensor, row_b: Tensor, position: int) -> Tensor:  # noqa: D102 – as `Choose` says
        if position == 0:
            self._copy_BV = torch.empty_like(logits_bV, dtype=torch.float32)
        return self.sayable.copy(logits_bV, self._copy_BV).argmax(-1)


class Draw:
    """Sampling by inversion: the first piece at which the cumulated probability passes the row's uniform number."""

    def __init__(self, sayable: Sayable, uniform_BN: Tensor, *, temperature: float, top_p: float = 1.0) -> None:
        """uniform_BN: in fp64, for each prompt of the call and each new token."""
        self.sayable, self.uniform_BN = sayable, uniform_BN
        self.temperature, self.top_p = temperature, top_p
        self._copy_BV = self._mass_BV = torch.empty(0)

    def __call__(self, logits_bV: Tensor, row_b: Tensor, position: int) -> Tensor:  # noqa: D102 – as `Choose` says
        if position == 0:
            self.uniform_BN = sent(self.uniform_BN, logits_bV.device)
            self._copy_BV, self._mass_BV = (torch.empty_like(logits_bV, dtype=torch.float32) for _ in range(2))
        logits_bK = self.sayable.copy(logits_bV, self._copy_BV)
        if self.temperature != 1:
            logits_bK /= self.temperature
        mass_bK = self._mass_BV.view(-1)[: logits_bK.numel()].view_as(logits_bK)
        torch.softmax(logits_bK, -1, out=mass_bK)
        if self.top_p < 1:
            keep_nucleus(mass_bK, self.top_p)
        return invert(mass_bK, self.uniform_BN[row_b, position])


def invert(mass_bK: Tensor, uniform_b: Tensor) -> Tensor:
    """The piece at which the cumulated mass passes the share `uniform_b` of the whole: the block first, then within it.

    mass_bK: fp32, need not sum to 1. Ids [b], never of a piece without mass; of a row that is no number some piece, so
    that the step goes on to its loss, which says what is wrong.
    """
    blocks = mass_bK.shape[1] // BLOCK
    blocks_bS = mass_bK[:, : blocks * BLOCK].view(len(mass_bK), blocks, BLOCK).sum(-1)
    rest_b1 = mass_bK[:, blocks * BLOCK :].sum(-1, keepdim=True)
    cumulated_bS = running_sum(torch.cat([blocks_bS, rest_b1], dim=1))
    share_b1 = uniform_b[:, None] * cumulated_bS[:, -1:]
    block_b1 = _passed(cumulated_bS, share_b1)
    before_b1 = pad(cumulated_bS, (1, 0)).gather(1, block_b1)
    piece_bC = block_b1 * BLOCK + torch.arange(BLOCK, device=mass_bK.device)
    inside = piece_bC < mass_bK.shape[1]
    in_block_bC = mass_bK.gather(1, piece_bC.clamp(max=mass_bK.shape[1] - 1)) * inside
    place_b1 = _passed(running_sum(in_block_bC), share_b1 - before_b1)
    return (block_b1 * BLOCK + place_b1).squeeze(1).clamp(max=mass_bK.shape[1] - 1)


def _passed(cumulated_bC: Tensor, value_b1: Tensor) -> Tensor:
    """The first column whose sum is above the value; rounding must not carry it beyond the last that adds mass."""
    last_b1 = torch.searchsorted(cumulated_bC, cumulated_bC[:, -1:].contiguous())
    return torch.searchsorted(cumulated_bC, value_b1, right=True).minimum(last_b1)


def keep_nucleus(mass_bK: Tensor, top_p: float) -> None:
    """Take the mass from all but the likeliest pieces that hold `top_p` together, and those as likely as the last of
    them. In place."""
    width = min(HEAD, mass_bK.shape[1])
    head_bC = mass_bK.topk(width).values
    if width < mass_bK.shape[1] and bool((head_bC.sum(-1) < top_p).any()):
        head_bC = mass_bK.sort(-1, descending=True).values
    before_bC = running_sum(head_bC) - head_bC
    last_b1 = (before_bC < top_p).sum(-1, keepdim=True) - 1
    mass_bK.masked_fill_(mass_bK < head_bC.gather(1, last_b1), 0)
