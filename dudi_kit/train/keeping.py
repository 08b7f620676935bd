"""Frozen models are asked once: what they said of a row's own response is kept, and read whenever the row comes again.

What training uses is always what was written, also in the step in which it was asked: so it makes no difference who
asked, in which run, and whether it was killed in between. New answers wait in memory. They are written when a row comes
again that one of the processes has asked for since, with each checkpoint and at the end: so no process ever asks what
another one knows. Which rows those are, each process can tell from the order of the rows alone.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dudi_kit.data.batches import join
from dudi_kit.data.sending import sent
from dudi_kit.models.cache.store import Store
from dudi_kit.models.head_form import open_head
from dudi_kit.models.reading import predictions
from dudi_kit.plan.caching import drawn, heard, open_store, reference_key, teacher_key
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.rows import Row, TrainingRows
from dudi_kit.plan.schema import Plan
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.cache import HiddenCache, TeacherCache
from dudi_kit.train.forms import Form, Predicted, load_form, require_head, save_form
from dudi_kit.train.positions import Positions, positions_of

SAMPLED = 1024
"""Positions from which a store's sketch is made …"""

SAMPLED_OF_A_ROW = 16
"""… of a row at most, evenly spaced."""

ROWS_AT_ONCE = 4
"""While they are sampled."""


@dataclass
class TeacherAnswers:
    """The teacher's answers to the off-policy term."""

    store: Store
    cache: TeacherCache
    pad_id: int
    device: torch.device
    together: bool = False
    """The teacher is shared out over the processes: all must ask at once, or none."""

    form: Form | None = field(init=False)

    def __post_init__(self) -> None:
        self.form = load_form(self.store.folder, self.cache, self.device)

    def begin(self, teacher: nn.Module, rows: Sequence[Row]) -> None:
        """Make what the store's answers need, if this is the first run that asks; every process calls it.

        rows: of the run.
        """
        if self.some(self.form is None):  # another run may have made it just now, after some of us looked
            main = not dist.is_initialized() or dist.get_rank() == 0
            if main or self.together:
                hidden = isinstance(self.cache, HiddenCache)
                sample = [] if hidden else self._sample(teacher, rows)
                # A head that is shared out is gathered by all.
                with open_head(teacher, require_head(teacher)) if hidden else nullcontext():
                    if main:
                        save_form(self.store.folder, self.cache, teacher, lambda: sample)
            if dist.is_initialized():
                dist.barrier()
            self.form = load_form(self.store.folder, self.cache, self.device)
        assert self.form is not None, "it has just been made"

    def knows(self, row: Row) -> bool:
        """It was asked for this row."""
        return teacher_key(row) in self.store

    def ask(self, teacher: nn.Module | None, rows: Sequence[Row]) -> None:
        """Have the teacher answer what is not known of these rows."""
        lacking = [row for row in rows if not self.knows(row)]
        if self.together and self.some(bool(lacking)):
            lacking = lacking or [rows[0]]
        if not lacking:
            return
        assert teacher is not None, "it leaves only when all is answered"
        assert self.form is not None, "`begin` comes first"
        few = 0 if isinstance(self.cache, HiddenCache) else None
        positions, answers = self._positions(lacking), list[bytes]()
        with torch.no_grad(), self._asked(teacher, lacking, positions, few) as said:
            ids_N = sent(positions.ids, self.device, torch.long)
            answers = self.form.write(said, ids_N, [segment.place for segment in positions.segments])
        for row, answer in zip(lacking, answers, strict=True):
            self.store.put(teacher_key(row), answer)

    def predicted(self, rows: Sequence[Row]) -> Predicted:
        """What the teacher said, of one row's response after the other; all of it must be known."""
        assert self.form is not None, "`begin` comes first"
        return self.form.read([self.store[teacher_key(row)] for row in rows], self.device)

    def _positions(self, rows: Sequence[Row]) -> Positions:
        return positions_of(len(rows), ["off_policy"], lambda pair, _: heard(rows[pair]))

    def _asked(self, teacher: nn.Module, rows: Sequence[Row], positions: Positions, few: int | None) -> Any:
        prompts, responses = [row.teacher_prompts["off_policy"] for row in rows], [heard(row) for row in rows]
        batch = join(prompts, responses, pad_id=self.pad_id).to(self.device)
        options = {} if few is None else {"few": few}
        return predictions(teacher, batch, positions.places(self.device), **options)

    def some(self, mine: bool) -> bool:
        """Whether any process says so."""
        some = torch.tensor(int(mine), device=self.device)
        if dist.is_initialized():
            dist.all_reduce(some, dist.ReduceOp.MAX)
        return bool(some)

    @torch.no_grad()
    def _sample(self, teacher: nn.Module, rows: Sequence[Row]) -> list[Tensor]:
        """Logits at some positions of every language in turn."""
        found: list[Tensor] = []
        ordered = [row for row in _in_turn(rows) if heard(row)]
        for start in range(0, len(ordered), ROWS_AT_ONCE):
            some = ordered[start : start + ROWS_AT_ONCE]
            positions = self._positions(some)
            with self._asked(teacher, some, positions, None) as said:
                for segment in positions.segments:
                    length = segment.place.stop - segment.place.start
                    chosen = np.unique(np.linspace(0, length - 1, min(length, SAMPLED_OF_A_ROW)).round().astype(int))
                    found.append(said.logits(chosen + segment.place.start).bfloat16().clone())
            if sum(map(len, found)) >= SAMPLED:
                break
        return found


@dataclass
class ReferenceAnswers:
    """log π_ref(y|x) of the rows, in nats."""

    store: Store

    def __contains__(self, row: Row) -> bool:
        return reference_key(row) in self.store

    def get(self, row: Row) -> float:
        """Of a row that is there."""
        return float(np.frombuffer(self.store[reference_key(row)], dtype="<f8")[0])

    def put(self, row: Row, logprob: float) -> None:
        """Keep it."""
        self.store.put(reference_key(row), np.array([logprob], dtype="<f8").tobytes())


class Asker(NamedTuple):
    """Who asks."""

    pad_id: int
    """Of the teacher."""

    device: torch.device
    rank: int


@dataclass
class Keeping:
    """What a run keeps, and when it is written."""

    teacher: TeacherAnswers | None
    reference: ReferenceAnswers | None
    rows: Sequence[Row]
    """Of the whole run, by the numbers by which a step names them."""

    wanted: Sequence[int]
    """Those of them that are drawn at all."""

    leaves: bool
    """Nothing else than the off-policy term asks the teacher."""

    _since: set[int] = field(default_factory=set)
    """Rows that some process has read since all were written."""

    def before_step(self, numbers: Sequence[int]) -> bool:
        """Every process calls it with the rows of the global batch. Whether the teacher is not needed any more."""
        again = not self._since.isdisjoint(numbers)
        if again:
            self.write()
        self._since.update(numbers)
        return again and self.needs_no_teacher()

    def expect(self, rows: Iterable[Row]) -> None:
        """Rows that this process reads in the next step: their answers are read ahead while this one is computed."""
        if self.teacher is not None:
            self.teacher.store.expect(map(teacher_key, rows))

    def write(self) -> None:
        """Every process writes what it alone knows, and reads what others wrote."""
        stores = [part.store for part in (self.teacher, self.reference) if part is not None]
        for store in stores:
            store.flush()
        if dist.is_initialized():
            dist.barrier()
        for store in stores:
            store.look()
        self._since.clear()

    def needs_no_teacher(self) -> bool:
        """All is answered, and nothing else asks the teacher; all processes find the same."""
        if self.teacher is None or not self.leaves:
            return False
        knows = self.teacher.form is not None and all(self.teacher.knows(self.rows[i]) for i in self.wanted)
        return not self.teacher.some(not knows)


def keeping_of(run: RunDir, recipe: Recipe, plan: Plan, made: TrainingRows, asker: Asker) -> Keeping | None:
    """What the plan says."""
    planned = plan.cache
    if planned is None:
        return None
    teacher = reference = None
    if planned.teacher is not None:
        assert recipe.teacher is not None, "the plan keeps a teacher's answers"
        store = open_store(run, planned.teacher, rank=asker.rank)
        together = recipe.teacher.placement == "sharded" and plan.processes > 1
        teacher = TeacherAnswers(store, recipe.teacher.cache, asker.pad_id, asker.device, together)
    if planned.reference is not None:
        reference = ReferenceAnswers(open_store(run, planned.reference, rank=asker.rank))
    wanted = drawn(made, plan.steps * plan.batch_size)
    return Keeping(teacher, reference, made.rows, wanted, planned.teacher_leaves)


def _in_turn(rows: Sequence[Row]) -> list[Row]:
    """One of each language after the other."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.language, []).append(row)
    return [row for turn in zip_longest(*groups.values()) for row in turn if row is not None]
