"""What the teacher says at its tokens, chunk by chunk, its label words said in the row's language.

Shape suffixes: M the teacher's response tokens, n some of them, V its pieces, B rows, W the longest target word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dudi_kit.data.sending import sent
from dudi_kit.models.head import Place
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
    """Token → pieces of which the logit may be another, and those logits."""

    def logits(self, numbers_n: Columns) -> Tensor:
        """[n, V] at these tokens; the caller's to read, until the next call."""
        logits_nV = self.predictions.logits(_place(numbers_n))
        for token in self.moved.keys() & set(numbers_n.tolist()) if self.moved else ():
            pieces, values = self.moved[token]
            (at,) = np.flatnonzero(numbers_n == token)
            logits_nV[int(at), pieces] = values
        return logits_nV

    def logprobs(self, numbers_n: Columns, temperature: float) -> Tensor:
        """log T of the teacher's own token at these positions, in nats."""
        device, pieces = self.predictions.device, self.predictions.pieces
        said = np.asarray(self.positions.ids, dtype=np.int64)
        found_n = torch.zeros(len(numbers_n), dtype=at_least_fp32(self.predictions.dtype), device=device)
        for part in parts(slice(0, len(numbers_n)), chunk_positions(pieces, self.predictions.dtype)):
            logits_nV = self.logits(numbers_n[part])
            ids_n1 = sent(said[numbers_n[part]], device).unsqueeze(-1)
            for strip in strips(slice(0, len(logits_nV)), pieces):
                strip_nV = logits_nV[strip].to(found_n.dtype)
                strip_nV = strip_nV if temperature == 1 else strip_nV / temperature
                place = slice(part.start + strip.start, part.start + strip.stop)
                found_n[place] = strip_nV.log_softmax(-1).gather(-1, ids_n1[strip]).squeeze(-1)
        return found_n


def _place(numbers_n: Columns) -> Place:
    """Consecutive numbers as a slice, which costs no copy."""
    if len(numbers_n) and numbers_n[-1] - numbers_n[0] == len(numbers_n) - 1 and (np.diff(numbers_n) == 1).all():
        return slice(int(numbers_n[0]), int(numbers_n[-1]) + 1)
    return numbers_n


def with_label_words(
    predictions: Predicted, positions: Positions, moves: Sequence[Moves | None]
) -> tuple[Told, dict[str, LabelMass]]:
    """The teacher's mass on words of other languages moved to each row's own, and how much, by term."""
    device = predictions.device
    changed: dict[int, tuple[Tensor, Tensor]] = {}
    masses: dict[str, LabelMass] = {}
    for term in dict.fromkeys(segment.term for segment in positions.segments):
        segments = list(positions.of(term))
        mass = LabelMass(*(torch.zeros(len(moves), dtype=torch.float64, device=device) for _ in LabelMass._fields))
        declaring = {
            s.pair: (s.place, move)
            for s in segments
            if (move := moves[s.pair]) is not None and s.place.stop > s.place.start
        }
        if declaring:
            found, cells = _moved(predictions, positions, *zip(*declaring.values(), strict=True))
            changed |= cells
            for whole, some in zip(mass, found, strict=True):
                whole.index_copy_(0, sent(list(declaring), device), some)
        masses[term] = mass
    return Told(predictions, positions, changed), masses


def _moved(
    predictions: Predicted, positions: Positions, places: Sequence[slice], moves: Sequence[Moves]
) -> tuple[LabelMass, dict[int, tuple[Tensor, Tensor]]]:
    """For responses that declare labels: only pieces of their words can change, in as many first tokens as the longest
    word has."""
    longest = max((len(word) for move in moves for word in move.targets), default=1)
    width = max(1, min(longest, max(place.stop - place.start for place in places)))
    first_BWV = torch.stack([_first(predictions, place, width) for place in places])
    mass = move_label_mass(first_BWV, moves, [positions.ids[place] for place in places])
    cells: dict[int, tuple[Tensor, Tensor]] = {}
    for first_WV, place, move in zip(first_BWV, places, moves, strict=True):
        numbers = sorted({piece for word in (*move.sources, *move.targets) for piece in word})
        pieces = sent(numbers, first_WV.device, torch.long)
        for column, token in enumerate(range(place.start, min(place.stop, place.start + width))):
            cells[token] = pieces, first_WV[column, pieces]
    return mass, cells


def _first(predictions: Predicted, place: slice, width: int) -> Tensor:
    """Logits of a response's first tokens, 0 beyond its end: [W, V]."""
    some = predictions.logits(slice(place.start, min(place.stop, place.start + width)))
    return torch.nn.functional.pad(some, (0, 0, 0, width - len(some))).clone()
