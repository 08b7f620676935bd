"""The teacher's mass on words of other languages, moved to the row's own word before the divergence.

Let T be the teacher, r_1 … r_R the response that it reads (in its own pieces), T_t its distribution of piece t. For
each label L of the row's set, S_L are the pieces whose mass moves and u = u_1 … u_n the target word (see `words`). Let
κ = `KEPT`. At the first position M_L = (1−κ)·Σ_{p∈S_L} T_1(p) moves:

    T'_1(p)   = κ·T_1(p)                            for p in S_L
    T'_1(u_1) = T_1(u_1) + Σ M_L                    over the labels whose target begins with this piece

The moved mass goes on as its word: after u_1 … u_{t−1} it says u_t. What the teacher itself says there, and what was
moved, are mixed by how likely each is to have come so far. So where r_1 … r_{t−1} begins target words, those of the
labels in A, and N_t is the probability of this beginning without the mass that is still on its way along A,

    T'_t(a) = (N_t·T_t(a) + Σ_{L∈A} M_L·[a = u_t]) / (N_t + Σ_{L∈A} M_L)
    N_1 = 1;   N_{t+1} = N_t·T_t(r_t) + Σ M_L over the labels whose whole target is r_1 … r_t

Where no target begins with r_1 … r_{t−1}, T'_t = T_t. This is the chain rule of one change to the distribution of whole
responses, "each source word becomes its target": every T'_t sums to 1, and the product over a target's pieces is the
teacher's own probability of the word plus M_L. Only what is read anyway is used: the positions of r, no other pass.

The formulas are odds between a few pieces and all others, so in logits a few columns change, in place, and softmax does
the rest. A small share κ stays: without any, KL(π‖T') of a student that still says the other word would be infinite.
Shape suffixes: B rows, R response columns, V teacher's pieces, G labels of rows.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dudi_kit.data.sending import sent
from dudi_kit.verbalizer.label_words.words import Moves

KEPT = 0.01
"""Share of a source piece's mass that stays on it."""

SURE = 60.0
"""Log-odds beyond which a piece counts as certain; keeps logits finite where the teacher gives a beginning no mass."""


class LabelMass(NamedTuple):
    """The teacher's probability at the first position of each row, added up over the pieces of the set: [B]."""

    moved: Tensor
    at_home: Tensor
    """On words of the row's own language, as far as their first piece tells them, before anything moved."""

    declared: Tensor
    """1 for rows that declare a set, else 0."""


class _Heir(NamedTuple):
    """Who the moved mass of one label goes on as, in one row."""

    row: int
    sources: tuple[int, ...]
    word: tuple[int, ...]


@torch.no_grad()
def move_label_mass(logits_BRV: Tensor, moves: Sequence[Moves | None], responses: Sequence[Sequence[int]]) -> LabelMass:
    """Change the teacher's logits in place as the module says.

    moves: of each row; None where no set is declared, and such rows are not read. responses: of each row, in the
    teacher's pieces, without padding.
    """
    declared = [(row, move) for row, move in enumerate(moves) if move is not None and responses[row]]
    heirs = [
        _Heir(row, sources, word)
        for row, move in declared
        for sources, word in zip(move.sources, move.targets, strict=True)
    ]
    mass_B = logits_BRV.new_zeros(len(moves), dtype=torch.float64)
    mass = LabelMass(mass_B, mass_B.clone(), mass_B.clone())
    if not heirs:
        return mass
    rows = [row for row, _ in declared]
    normaliser_B = _normaliser(logits_BRV, rows, 0)
    own = [(row, row, piece) for row, move in declared for piece in move.own]
    sources = [(g, heir.row, piece) for g, heir in enumerate(heirs) for piece in heir.sources]
    moved_G = _added_up(logits_BRV, normaliser_B, sources, len(heirs)) * (1 - KEPT)
    mass.moved.index_add_(0, _index(logits_BRV, [heir.row for heir in heirs]), moved_G)
    mass.at_home.add_(_added_up(logits_BRV, normaliser_B, own, len(moves)))
    mass.declared.index_fill_(0, _index(logits_BRV, rows), 1.0)
    _pass_on(logits_BRV, normaliser_B, responses, heirs, moved_G)
    if sources:
        _, of_row, piece = (_index(logits_BRV, part) for part in zip(*sources, strict=True))
        logits_BRV[of_row, 0, piece] += math.log(KEPT)
    return mass


def _pass_on(
    logits_BRV: Tensor,
    first_normaliser_B: Tensor,
    responses: Sequence[Sequence[int]],
    heirs: Sequence[_Heir],
    moved_G: Tensor,
) -> None:
    """Give the moved mass to the targets, piece by piece, as far as the response follows them."""
    natural_B, normaliser_B = torch.ones_like(first_normaliser_B), first_normaliser_B  # N_t, and log Σ exp of logits
    for t in itertools.count():
        here = [g for g, heir in enumerate(heirs) if _is_next(heir.word, responses[heir.row], t)]
        if not here:
            return
        rows = sorted({heirs[g].row for g in here})
        if t > 0:
            normaliser_B = _normaliser(logits_BRV, rows, t)
        row, said = _index(logits_BRV, rows), _index(logits_BRV, [responses[row][t] for row in rows])
        later_B = natural_B.clone()
        later_B[row] *= (logits_BRV[row, t, said].double() - normaliser_B[row]).exp()
        whole = [g for g in here if heirs[g].word == tuple(responses[heirs[g].row][: t + 1])]
        later_B.index_add_(0, _index(logits_BRV, [heirs[g].row for g in whole]), moved_G[_index(logits_BRV, whole)])
        cells = [(heirs[g].row, heirs[g].word[t]) for g in here]
        _receive(logits_BRV, t, normaliser_B, natural_B, cells, moved_G[_index(logits_BRV, here)])
        natural_B = later_B


def _receive(
    logits_BRV: Tensor,
    t: int,
    normaliser_B: Tensor,
    natural_B: Tensor,
    cells: Sequence[tuple[int, int]],
    moved_C: Tensor,
) -> None:
    """Raise the odds of the next pieces at position t. cells: (row, piece) of each heir, some of them the same."""
    distinct = sorted(set(cells))
    place = {cell: i for i, cell in enumerate(distinct)}
    row, piece = (_index(logits_BRV, part) for part in zip(*distinct, strict=True))
    added = moved_C.new_zeros(len(distinct)).index_add_(0, _index(logits_BRV, [place[c] for c in cells]), moved_C)
    odds = added / natural_B[row].clamp_min(torch.finfo(torch.float64).tiny)
    raised = torch.logaddexp(logits_BRV[row, t, piece].double(), normaliser_B[row] + odds.log().clamp(max=SURE))
    logits_BRV[row, t, piece] = raised.to(logits_BRV.dtype)


def _is_next(word: Sequence[int], response: Sequence[int], t: int) -> bool:
    """Whether a piece of the word is due at position t of the response."""
    return t < len(word) and t < len(response) and tuple(response[:t]) == tuple(word[:t])


def _normaliser(logits_BRV: Tensor, rows: Sequence[int], t: int) -> Tensor:
    """log Σ_v exp(logits[b, t, v]) of some rows, 0 of the others: [B]."""
    row = _index(logits_BRV, rows)
    some_NV = logits_BRV[row, t]
    normaliser_B = logits_BRV.new_zeros(len(logits_BRV), dtype=torch.float64)
    normaliser_B[row] = some_NV.to(torch.promote_types(some_NV.dtype, torch.float32)).logsumexp(-1).double()
    return normaliser_B


def _added_up(logits_BRV: Tensor, normaliser_B: Tensor, cells: Sequence[tuple[int, int, int]], size: int) -> Tensor:
    """Probabilities at the first position, added up into slots. cells: (slot, row, piece)."""
    total = normaliser_B.new_zeros(size)
    if not cells:
        return total
    slot, row, piece = (_index(logits_BRV, part) for part in zip(*cells, strict=True))
    return total.index_add_(0, slot, (logits_BRV[row, 0, piece].double() - normaliser_B[row]).exp())


def _index(like: Tensor, numbers: Sequence[int]) -> Tensor:
    return sent(numbers, like.device, torch.long)
