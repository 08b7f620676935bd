"""What the teacher says at its tokens, chunk by chunk, its label words said in the row's language.

Shape suffixes: M the teacher's response tokens, n some of them, V its pieces, B rows, W the longest target word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dudi_kit.signals.chunks import chunk_positions, parts, strips
from dudi_kit.signals.divergences import at_least_fp32
from dudi_kit.train.forms import Predicted
from dudi_kit.train.positions import Positions
from dudi_kit.verbalizer.label_words.mass import LabelMass, move_label_mass
from dudi_kit.verbalizer.label_words.words import Moves
from dudi_kit.verbalizer.vocabulary.alignment import Columns


@dataclass(frozen=True)
class Told:
    """The teacher's side of a micro-batch, live or as it was kept."""

    predictions: Predicted
    positions: Positions
    moved: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Token → pieces of which the logit is another, and those logits."""

    def logits(self, numbers_n: Columns) -> Tensor:
        """[n, V] at these tokens; the caller's to read, until the next call."""
        logits_nV = self.predictions.logits(_place(numbers_n, self.predictions.device))
        for token in self.moved.keys() & set(numbers_n.tolist()) if self.moved else ():
            pieces, values = self.moved[token]
            (at,) = np.flatnonzero(numbers_n == token)
            logits_nV[int(at), pieces] = values
        return logits_nV

    def logprobs(self, numbers_n: Columns, temperature: float) -> Tensor:
        """log T of the teacher's own token at these positions, in nats."""
        said = torch.tensor(self.positions.ids, device=self.predictions.device)
        found_n = torch.zeros(len(numbers_n), dtype=at_least_fp32(self.predictions.dtype), device=said.device)
        pieces = self.predictions.pieces
        for part in parts(slice(0, len(numbers_n)), chunk_positions(pieces, self.predictions.dtype)):
            logits_nV = self.logits(numbers_n[part])
            ids_n1 = said[torch.from_numpy(numbers_n[part]).to(said.device)].unsqueeze(-1)
            for strip in strips(slice(0, len(logits_nV)), pieces):
                strip_nV = logits_nV[strip].to(found_n.dtype)
                strip_nV = strip_nV if temperature == 1 else strip_nV / temperature
                place = slice(part.start + strip.start, part.start + strip.stop)
                found_n[place] = strip_nV.log_softmax(-1).gather(-1, ids_n1[strip]).squeeze(-1)
        return found_n


def _place(numbers_n: Columns, device: torch.device) -> slice | Tensor:
    """Consecutive numbers as a slice, which costs no copy."""
    if len(numbers_n) and numbers_n[-1] - numbers_n[0] == len(numbers_n) - 1 and (np.diff(numbers_n) == 1).all():
        return slice(int(numbers_n[0]), int(numbers_n[-1]) + 1)
    return torch.from_numpy(numbers_n).to(device)


def with_label_words(
    predictions: Predicted, positions: Positions, moves: Sequence[Moves | None]
) -> tuple[Told, dict[str, LabelMass]]:
    """The teacher's mass on words of other languages moved to each row's own, and how much, by term."""
    changed: dict[int, tuple[Tensor, Tensor]] = {}
    masses: dict[str, LabelMass] = {}
    for term in dict.fromkeys(segment.term for segment in positions.segments):
        segments = list(positions.of(term))
        mass = LabelMass(*(torch.zeros(len(moves), dtype=torch.float64) for _ in LabelMass._fields))
        declaring = [s for s in segments if moves[s.pair] is not None and s.place.stop > s.place.start]
        if declaring:
            rows = [s.pair for s in declaring]
            found, cells = _moved(predictions, positions, [s.place for s in declaring], [moves[row] for row in rows])
            changed |= cells
            for whole, some in zip(mass, found, strict=True):
                whole[rows] = some.to(whole.device)
        masses[term] = LabelMass(*(part.to(predictions.device) for part in mass))
    return Told(predictions, positions, changed), masses


def _moved(
    predictions: Predicted, positions: Positions, places: Sequence[slice], moves: Sequence[Moves | None]
) -> tuple[LabelMass, dict[int, tuple[Tensor, Tensor]]]:
    """For responses that declare labels: only their first tokens, as many as the longest word has, can change."""
    longest = max((len(word) for move in moves if move for word in move.targets), default=1)
    width = max(1, min(longest, max(place.stop - place.start for place in places)))
    first_BWV = torch.stack([_first(predictions, place, width) for place in places])
    before_BWV = first_BWV.clone()
    mass = move_label_mass(first_BWV, moves, [positions.ids[place] for place in places])
    cells: dict[int, tuple[Tensor, Tensor]] = {}
    for row, column in (first_BWV != before_BWV).any(-1).nonzero().tolist():
        (pieces,) = (first_BWV[row, column] != before_BWV[row, column]).nonzero(as_tuple=True)
        cells[places[row].start + column] = pieces, first_BWV[row, column, pieces]
    return mass, cells


def _first(predictions: Predicted, place: slice, width: int) -> Tensor:
    """Logits of a response's first tokens, 0 beyond its end: [W, V]."""
    some = predictions.logits(slice(place.start, min(place.stop, place.start + width)))
    return torch.nn.functional.pad(some, (0, 0, 0, width - len(some))).clone()
