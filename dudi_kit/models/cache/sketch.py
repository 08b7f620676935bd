"""Logits over a whole vocabulary in a few numbers: where they lie among the directions in which they vary most.

Logits are a matrix product, so what they say of unlikely pieces follows from far fewer numbers than there are pieces.
The directions are found once for a store, from some of its own tokens, and kept beside the answers:

    logits ≈ mean_V + components_VR · coefficients_R

which is the best such approximation (principal components) where an error counts as much as its piece does: half by the
teacher's mean probability of it, half the same for all. Logits are shifted first so that their mean under these
weights is 0; a softmax does not see it. Coefficients are rounded to the same step in all directions, which together
adds `NOISE` of the error that leaving out the other directions makes.
Shape suffixes: N positions, V vocabulary, R directions, C positions that the directions are found from.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dudi_kit.models.cache.beside import load_beside, save_beside

NOISE = 0.05
"""Of rounding, as a share of the error that is there without it."""

REACH = 4.0
"""Standard deviations of a coefficient that can be written, to either side."""

DEEPEST = 100.0
"""Nats below a position's likeliest piece: what lies deeper is taken to lie there."""

PIECES_AT_ONCE = 2**13

FILE = "sketch"


class Sketch(NamedTuple):
    """The directions, and how coefficients are written."""

    mean_V: Tensor
    """fp32."""

    components_VR: Tensor
    """Logits of one step along each direction: fp32, rounded to fp16, as which they are saved."""

    weight_V: Tensor
    """What an error of each piece counts; adds up to 1: fp32."""

    norm_R: Tensor
    """Σ weight·component² of each direction: fp32."""

    widths_R: Tensor
    """Bits of each coefficient: int64."""

    order_V: Tensor
    """The pieces, the likeliest on average first: int64."""

    def to(self, device: torch.device) -> "Sketch":
        """On another device."""
        return Sketch(*(part.to(device) for part in self))

    @torch.no_grad()
    def coefficients(self, logits_NV: Tensor) -> Tensor:
        """Whole numbers that each fit into their width: [N, R], int64."""
        centred_NV = centred(logits_NV, self.weight_V) - self.mean_V
        found_NR = (centred_NV * self.weight_V) @ self.components_VR / self.norm_R
        most_R = 2 ** (self.widths_R - 1) - 1
        return found_NR.round().long().clamp(-most_R, most_R)

    @torch.no_grad()
    def logits(self, coefficients_NR: Tensor, out_NV: Tensor | None = None) -> Tensor:
        """Approximate logits, up to a constant of each position: [N, V], fp32; in `out_NV` where that is given."""
        return torch.addmm(self.mean_V, coefficients_NR.float(), self.components_VR.T, out=out_NV)


@torch.no_grad()
def make_sketch(logits: Sequence[Tensor], directions: int) -> Sketch:
    """Find the directions. logits: of some positions each, [n, V]; held twice in bf16 while it works."""
    positions = sum(map(len, logits))
    probability_V = torch.stack([part.float().softmax(-1).sum(0) for part in logits]).sum(0) / positions
    weight_V = 0.5 * probability_V + 0.5 / len(probability_V)
    whole_CV = torch.cat([centred(part, weight_V).bfloat16() for part in logits])
    mean_V = torch.cat([columns.float().mean(0) for columns in torch.split(whole_CV, PIECES_AT_ONCE, dim=1)])
    cut = (torch.split(part, PIECES_AT_ONCE, dim=-1) for part in (whole_CV, mean_V, weight_V))
    blocks = list(zip(*cut, strict=True))
    gram_CC = torch.zeros(positions, positions, device=whole_CV.device)
    for columns_CP, mean_P, weight_P in blocks:
        away_CP = (columns_CP.float() - mean_P) * weight_P.sqrt()
        gram_CC.addmm_(away_CP, away_CP.T)
    energy_C, vectors_CC = torch.linalg.eigh(gram_CC.double())
    kept = max(min(directions, positions - 1, len(mean_V)), 1)
    energy_R, vectors_CR = energy_C[-kept:].flip(0).clamp(min=1e-12), vectors_CC[:, -kept:].flip(1)
    left_out = max(float(energy_C[:-kept].sum()), 1e-6 * float(energy_R.sum())) / positions
    step = math.sqrt(12 * NOISE * left_out / kept)
    unit_CR = (vectors_CR / energy_R.sqrt() * step).float()
    components_VR = torch.cat([(columns_CP.float() - mean_P).T @ unit_CR for columns_CP, mean_P, _ in blocks])
    components_VR = components_VR.half().float()
    deviation_R = (energy_R / positions).sqrt()
    return Sketch(
        mean_V,
        components_VR,
        weight_V,
        (weight_V @ components_VR.square()).clamp(min=1e-30),
        (2 * REACH * deviation_R / step + 1).log2().ceil().long().clamp(2, 15),
        probability_V.argsort(descending=True, stable=True),
    )


def centred(logits_NV: Tensor, weight_V: Tensor) -> Tensor:
    """Shifted so that the weighted mean is 0; fp32."""
    logits_NV = logits_NV.float()
    logits_NV = logits_NV.clamp(min=logits_NV.amax(-1, keepdim=True) - DEEPEST)
    return logits_NV - (logits_NV @ weight_V).unsqueeze(-1)


def save_sketch(folder: Path, sketch: Sketch) -> None:
    """Write it whole or not at all; its name holds a hash of its content."""
    halved = sketch._replace(components_VR=sketch.components_VR.half())
    save_beside(folder, FILE, {name: part.contiguous().cpu() for name, part in halved._asdict().items()})


def load_sketch(folder: Path) -> Sketch | None:
    """The folder's; None where there is none. RunDirectoryError: it is damaged."""
    found = load_beside(folder, FILE)
    if found is None:
        return None
    saved = Sketch(**found)
    return saved._replace(components_VR=saved.components_VR.float())
