"""What a teacher said at each position of a response, in few bytes: its likeliest pieces, and a sketch of the rest.

Of each position are written: the pieces that it finds likeliest, and the piece of the response itself; their
probabilities; the probability of all others together; and how that is shared out among them, as a `Sketch`. So the
mass of every kept piece and of the rest is the teacher's to within rounding, and the shape of the rest is approximate.
How far it all is from the teacher is measured when it is written: KL(T‖T̂) over the whole vocabulary.

An answer, in little-endian numbers: positions, kept pieces, bytes of their ids' unary part (4 bytes each), Σ KL(T‖T̂) in
nats (fp32); number of pieces of each position (1 byte); log of the rest's mass (fp16); levels of the pieces' log p
(1 byte each); coefficients of the sketch, ids (`bits`).
Shape suffixes: N positions, M kept pieces, K the most of one position, R directions, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dudi_kit.data.sending import sent
from dudi_kit.models.cache import bits
from dudi_kit.models.cache.bits import Numbers
from dudi_kit.models.cache.sketch import Sketch
from dudi_kit.models.head import Place, at

UNLIKELY = 1e-4
"""Pieces below this probability are kept only if they are among the first `ALWAYS`."""

ALWAYS = 10
"""Pieces that are kept of every position: as many as `top10_overlap` looks at."""

LEAST = -100.0
"""log of the rest's mass at least."""

LEVELS = 255
SHARPNESS = 6.0
"""Level = 255·p^(1/6): log p is right to ±0.012 at p = 1, ±0.05 at 10⁻⁴ and ±0.25 at 10⁻⁸; it is never below −33."""

_HEAD = np.dtype([("positions", "<u4"), ("kept", "<u4"), ("unary", "<u4"), ("error", "<f4")])


class Kept(NamedTuple):
    """What is known of N positions; any slice of all its tensors is what is known of those."""

    coefficients_NR: Tensor
    """Of the sketch: int16."""

    pieces_NK: Tensor
    """Ids; a position with fewer repeats its last one: int32."""

    logprob_NK: Tensor
    """log T̂ of the pieces in nats: fp32."""

    rest_N: Tensor
    """log T̂ of all other pieces together: fp32."""

    ceiling_N: Tensor
    """log T of each of them is at most this: fp32."""

    def some(self, place: Place) -> "Kept":
        """What is known of these positions."""
        return Kept(*(at(part_N, place) for part_N in self))

    def to(self, device: torch.device) -> "Kept":
        """On another device."""
        return Kept(*(sent(part, device) for part in self))


@torch.no_grad()
def told(kept: Kept, sketch: Sketch) -> Tensor:
    """log T̂ of every piece: [N, V], fp32."""
    return fit_(sketch.logits(kept.coefficients_NR), kept)


@torch.no_grad()
def fit_(logits_NV: Tensor, kept: Kept) -> Tensor:
    """What is sketched of these positions → log T̂, in place.

    No piece of the rest was likelier than the kept ones, the response's own aside, of which it is not known whether it
    is one of the likeliest: so than the last but one. What the sketch has beyond that is shared out among the others.
    """
    pieces_NK, rest_N1 = kept.pieces_NK.long(), kept.rest_N.unsqueeze(-1)
    logits_NV.scatter_(-1, pieces_NK, -torch.inf)
    logits_NV += rest_N1 - logits_NV.logsumexp(-1, keepdim=True)
    torch.minimum(logits_NV, kept.ceiling_N.unsqueeze(-1), out=logits_NV)
    logits_NV += rest_N1 - logits_NV.logsumexp(-1, keepdim=True)
    return logits_NV.scatter_(-1, pieces_NK, kept.logprob_NK)


@torch.no_grad()
def keep(logits_NV: Tensor, own_N: Tensor, sketch: Sketch, most: int) -> "Written":
    """Choose and round what is kept of some positions. own_N: the response's own pieces. most: pieces of a position."""
    logprob_NV = logits_NV.float().log_softmax(-1)
    likeliest = logprob_NV.topk(min(most, logprob_NV.shape[-1] - 2))
    rank_K = torch.arange(likeliest.values.shape[-1], device=logits_NV.device)
    chosen_NK = (likeliest.values.exp() >= UNLIKELY) | (rank_K < ALWAYS)
    own_N1 = own_N.unsqueeze(-1)
    lacks_own_N1 = ~((likeliest.indices == own_N1) & chosen_NK).any(-1, keepdim=True)
    pieces_NK = torch.cat([likeliest.indices, own_N1], dim=-1)
    chosen_NK = torch.cat([chosen_NK, lacks_own_N1], dim=-1)
    place_V = torch.empty_like(sketch.order_V).scatter_(0, sketch.order_V, torch.arange(len(sketch.order_V)).to(own_N))
    place_NK, sorting_NK = place_V[pieces_NK].masked_fill(~chosen_NK, len(place_V)).sort(-1)
    inside_NK = place_NK < len(place_V)
    said_NK = logprob_NV.gather(-1, pieces_NK)
    kept_NK = chosen_NK | (pieces_NK == own_N1)  # the response's own piece may stand there twice
    rest_N = logprob_NV.scatter(-1, pieces_NK, said_NK.masked_fill(kept_NK, -torch.inf)).logsumexp(-1)
    level_NK = (LEVELS * (said_NK / SHARPNESS).exp()).round()
    # The likeliest piece stays the only one: a second one on its level would look as likely.
    level_NK[:, 1:] = level_NK[:, 1:].minimum(level_NK[:, :1] - 1)
    written = Written(
        counts_N=_array(inside_NK.sum(-1)),
        places_M=_array(place_NK[inside_NK]),
        levels_M=_array(level_NK.clamp(min=1).gather(-1, sorting_NK)[inside_NK]).astype(np.uint8),
        rest_N=_array(rest_N.clamp(min=LEAST)).astype(np.float16),
        coefficients_NR=_array(sketch.coefficients(logits_NV)).astype(np.int16),
        error_N=np.zeros(len(logits_NV), dtype=np.float32),
    )
    found_NV = told(read([written], sketch).to(logits_NV.device), sketch)
    error_N = (logprob_NV.exp() * (logprob_NV - found_NV)).sum(-1)
    return written._replace(error_N=_array(error_N).astype(np.float32))


class Written(NamedTuple):
    """The numbers that are written of some positions."""

    counts_N: Numbers
    """Kept pieces."""

    places_M: Numbers
    """Of each piece in the sketch's order, ascending within a position."""

    levels_M: NDArray[np.uint8]
    rest_N: NDArray[np.float16]
    coefficients_NR: NDArray[np.int16]
    error_N: NDArray[np.float32]
    """KL(T‖T̂) in nats."""

    def at(self, positions: slice) -> "Written":
        """Consecutive positions."""
        start, stop, _ = positions.indices(len(self.counts_N))
        ends_N = np.concatenate([[0], np.cumsum(self.counts_N)])
        pieces = slice(ends_N[start], ends_N[stop])
        by_piece = {"places_M", "levels_M"}
        return Written(**{n: part[pieces if n in by_piece else positions] for n, part in self._asdict().items()})

    def pack(self, sketch: Sketch) -> bytes:
        """As an answer."""
        low, unary = bits.pack_ids(self.places_M, self.counts_N)
        head = np.array([(len(self.counts_N), len(self.places_M), len(unary), self.error_N.sum())], dtype=_HEAD)
        offset_R = _array(2 ** (sketch.widths_R - 1) - 1)
        widths = np.tile(_array(sketch.widths_R), len(self.counts_N))
        coefficients = bits.pack((self.coefficients_NR + offset_R).ravel(), widths)
        parts = (head, self.counts_N.astype(np.uint8), self.rest_N, self.levels_M, coefficients, unary, low)
        return b"".join(part.tobytes() for part in parts)


def joined(parts: Sequence[Written]) -> Written:
    """Positions one after the other."""
    return Written(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def unpack(answer: bytes, sketch: Sketch) -> Written:
    """What `Written.pack` made. The error is the mean of the answer's positions."""
    content = np.frombuffer(answer, dtype=np.uint8)
    head = content[: _HEAD.itemsize].view(_HEAD)[0]
    positions, kept = int(head["positions"]), int(head["kept"])
    widths_R = _array(sketch.widths_R)
    sizes = (positions, 2 * positions, kept, -(-positions * int(widths_R.sum()) // 8), int(head["unary"]))
    counts, rest, levels, coefficients, unary, low = np.split(content[_HEAD.itemsize :], np.cumsum(sizes))
    counts_N = counts.astype(np.int64)
    whole = bits.unpack(coefficients, np.tile(widths_R, positions)).reshape(positions, len(widths_R))
    return Written(
        counts_N=counts_N,
        places_M=bits.unpack_ids(low, unary, counts_N),
        levels_M=levels,
        rest_N=np.frombuffer(rest.tobytes(), dtype="<f2"),
        coefficients_NR=(whole - (2 ** (widths_R - 1) - 1)).astype(np.int16),
        error_N=np.full(positions, head["error"] / max(positions, 1), dtype=np.float32),
    )


def stated_error(answers: Iterable[bytes]) -> float:
    """KL(T‖T̂) of whole answers in nats, a mean over their positions."""
    heads = [np.frombuffer(answer[: _HEAD.itemsize], dtype=_HEAD)[0] for answer in answers]
    return float(sum(head["error"] for head in heads)) / max(1, sum(int(head["positions"]) for head in heads))


def read(answers: Sequence[Written], sketch: Sketch) -> Kept:
    """What is known of all positions of some answers, one after the other, on the CPU."""
    all_of_them = joined(answers)
    counts_N = all_of_them.counts_N
    column_K = np.arange(counts_N.max(initial=1))
    starts_N = np.cumsum(counts_N) - counts_N
    piece_NK = starts_N[:, None] + np.minimum(column_K, counts_N[:, None] - 1)
    levels_NK = torch.from_numpy(all_of_them.levels_M[piece_NK].astype(np.float32))
    logprob_NK, rest_N = SHARPNESS * (levels_NK / LEVELS).log(), torch.from_numpy(all_of_them.rest_N.astype(np.float32))
    repeats_NK = torch.from_numpy(column_K >= counts_N[:, None])
    together_N = logprob_NK.masked_fill(repeats_NK, -torch.inf).logsumexp(-1)
    kept_N = torch.log1p(-rest_N.clamp(max=-1e-6).exp())
    logprob_NK += (kept_N - together_N).unsqueeze(-1)
    lowest_N2 = logprob_NK.masked_fill(repeats_NK, torch.inf).topk(min(2, len(column_K)), largest=False).values
    return Kept(
        torch.from_numpy(all_of_them.coefficients_NR),
        sketch.order_V.cpu()[torch.from_numpy(all_of_them.places_M[piece_NK])].int(),
        logprob_NK,
        rest_N,
        lowest_N2[:, -1],
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.cpu().numpy()
