"""The two forms in which a teacher's answers are kept, and how predictions come out of them again.

Shape suffixes: N positions, n some of them, V vocabulary, H hidden.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dudi_kit.data.sending import sent
from dudi_kit.errors import ModelError
from dudi_kit.models.cache.beside import load_beside, save_beside
from dudi_kit.models.cache.kept import Kept, fit_, joined, keep, read, unpack
from dudi_kit.models.cache.sketch import Sketch, load_sketch, make_sketch, save_sketch
from dudi_kit.models.head import Head, Place, Predictions, Room
from dudi_kit.models.head_form import head_form, open_head
from dudi_kit.recipe.schema.cache import HiddenCache, TeacherCache, TopKCache
from dudi_kit.signals.chunks import chunk_positions, parts, strips
from dudi_kit.train.positions import Positions

HEAD = "head"


class Predicted(Protocol):
    """As `models.head.Predictions`: what is told at N positions."""

    @property
    def pieces(self) -> int:
        """V."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the logits."""
        ...

    @property
    def device(self) -> torch.device:
        """Of the logits."""
        ...

    def logits(self, place: Place) -> Tensor:
        """[n, V] at these positions; valid until the next call."""
        ...


@dataclass(frozen=True)
class Sketched:
    """Predictions out of kept pieces and a sketch."""

    kept: Kept
    sketch: Sketch
    dtype: torch.dtype = torch.float32
    _room: Room = field(default_factory=Room, compare=False, repr=False)

    @property
    def pieces(self) -> int:
        """V."""
        return len(self.sketch.mean_V)

    @property
    def device(self) -> torch.device:
        """Of the logits."""
        return self.kept.rest_N.device

    def logits(self, place: Place) -> Tensor:
        """[n, V] at these positions, normalised; valid until the next call."""
        kept = self.kept.some(place)
        logits_nV = self._room.of(len(kept.rest_N), self.pieces, self.dtype, self.device)
        self.sketch.logits(kept.coefficients_NR, logits_nV)
        for strip in strips(slice(0, len(logits_nV)), self.pieces):
            fit_(logits_nV[strip], kept.some(strip))
        return logits_nV


@dataclass(frozen=True)
class Patched:
    """Predictions of which each position is one of another's."""

    sources: Sequence[Predicted]
    source_N: np.ndarray[Any, np.dtype[np.int64]]
    """Which source each position is from …"""

    number_N: np.ndarray[Any, np.dtype[np.int64]]
    """… and its number there."""

    dtype: torch.dtype
    _room: Room = field(default_factory=Room, compare=False, repr=False)

    @property
    def pieces(self) -> int:
        """V."""
        return self.sources[0].pieces

    @property
    def device(self) -> torch.device:
        """Of the logits."""
        return self.sources[0].device

    def logits(self, place: Place) -> Tensor:
        """[n, V] at these positions; valid until the next call."""
        source_n, number_n = self.source_N[place], self.number_N[place]
        logits_nV = self._room.of(len(source_n), self.pieces, self.dtype, self.device)
        for i, source in enumerate(self.sources):
            (at,) = np.nonzero(source_n == i)
            if not len(at):
                continue
            # Run by run: a place by number would first make a copy in the new dtype.
            said_mV, begin = source.logits(number_n[at]), 0
            for run in np.split(at, np.flatnonzero(np.diff(at) != 1) + 1):
                logits_nV[run[0] : run[-1] + 1] = said_mV[begin : begin + len(run)]
                begin += len(run)
        return logits_nV


def patched(sources: Sequence[Predicted], positions: Positions) -> Patched:
    """One source for each term, in the order of a pair's responses; each has its term's alone, pair after pair."""
    terms = list(dict.fromkeys(segment.term for segment in positions.segments))
    source_N, number_N = np.zeros(len(positions), dtype=np.int64), np.zeros(len(positions), dtype=np.int64)
    for i, term in enumerate(terms):
        begin = 0
        for segment in positions.of(term):
            length = segment.place.stop - segment.place.start
            source_N[segment.place], number_N[segment.place] = i, np.arange(begin, begin + length)
            begin += length
    dtype = reduce(torch.promote_types, (source.dtype for source in sources))
    return Patched(sources, source_N, number_N, dtype)


class Form(Protocol):
    """How answers are written and read."""

    def write(self, said: Predictions, ids_N: Tensor, places: Sequence[slice]) -> list[bytes]:
        """The answers to the responses at these places. ids_N: the teacher's tokens."""
        ...

    def read(self, answers: Sequence[bytes], device: torch.device) -> Predicted:
        """What was said, of one response after the other."""
        ...


@dataclass(frozen=True)
class TopKForm:
    """Likeliest pieces and a sketch of the others."""

    sketch: Sketch
    """On the host, where answers are packed and unpacked."""

    placed: Sketch
    """The same on the device."""

    most: int

    def write(self, said: Predictions, ids_N: Tensor, places: Sequence[slice]) -> list[bytes]:
        """See `Form`."""
        size = chunk_positions(said.pieces, torch.float32)
        chunks = list(parts(slice(0, len(said)), size)) or [slice(0, 0)]  # of a text that is cut within a letter
        whole = joined([keep(said.logits(part), ids_N[part], self.placed, self.most) for part in chunks])
        return [whole.at(place).pack(self.sketch) for place in places]

    def read(self, answers: Sequence[bytes], device: torch.device) -> Predicted:
        """See `Form`."""
        kept = read([unpack(answer, self.sketch) for answer in answers], self.sketch)
        return Sketched(kept.to(device), self.placed)


@dataclass(frozen=True)
class HiddenForm:
    """The hidden states that the head reads."""

    head: Head

    def write(self, said: Predictions, ids_N: Tensor, places: Sequence[slice]) -> list[bytes]:
        """See `Form`."""
        rows = said.rows.detach().to(self.head.weight_VH.dtype).cpu().contiguous()
        return [rows[place].view(torch.uint8).numpy().tobytes() for place in places]

    def read(self, answers: Sequence[bytes], device: torch.device) -> Predicted:
        """See `Form`."""
        weight_VH = self.head.weight_VH
        content = bytearray(b"".join(answers))
        whole = torch.frombuffer(content, dtype=weight_VH.dtype) if content else torch.empty(0, dtype=weight_VH.dtype)
        return Predictions(sent(whole.view(-1, weight_VH.shape[1]), device), self.head)


def load_form(folder: Path, cache: TeacherCache, device: torch.device) -> Form | None:
    """That of a store; None where its first answer is yet to come."""
    if isinstance(cache, TopKCache):
        sketch = load_sketch(folder)
        return None if sketch is None else TopKForm(sketch, sketch.to(device), cache.k)
    saved = load_beside(folder, HEAD)
    if saved is None:
        return None
    scale, cap = saved["scale"].item(), saved["cap"].item()
    bias_V = saved["bias_V"].to(device) if "bias_V" in saved else None
    return HiddenForm(Head(saved["weight_VH"].to(device), bias_V, scale, cap or None))


def save_form(folder: Path, cache: TeacherCache, teacher: nn.Module, some: Callable[[], list[Tensor]]) -> None:
    """Make what a store's answers need. some: logits at some of its positions, a part of them each."""
    if isinstance(cache, TopKCache):
        save_sketch(folder, make_sketch(some(), cache.rank))
        return
    assert isinstance(cache, HiddenCache), "nothing is kept without a cache"
    with open_head(teacher, require_head(teacher)) as head:
        found = {"weight_VH": head.weight_VH, "scale": torch.tensor(head.scale), "cap": torch.tensor(head.cap or 0.0)}
        if head.bias_V is not None:
            found["bias_V"] = head.bias_V
        save_beside(folder, HEAD, {name: part.detach().cpu().contiguous().clone() for name, part in found.items()})


def require_head(teacher: nn.Module) -> Any:
    """How the teacher's head is computed; ModelError where that is not known."""
    form = head_form(teacher)
    if form is None:
        raise ModelError(
            "teacher.cache: hidden: this teacher's output head does more than is known here, or the teacher is spread "
            "over several GPUs, so its logits can't be made from hidden states. Use type: top_k."
        )
    return form
