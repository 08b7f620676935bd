"""Which pieces of two vocabularies mean the same: the buckets over which two distributions are compared.

A bucket holds pieces of both sides that say the same. What is left over on a side is its rest, one bucket for all of
it; special pieces and embedding rows that mean nothing to the other side are cut, as under `shared`. Shape suffixes:
K buckets, E further pieces of them, R the rest.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dudi_kit.verbalizer.vocabulary.spelling import SPACE, Spelling, letters_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = NDArray[np.int64]
Meets = Literal["exact", "project"]

REST, CUT = -1, -2
"""In place of a bucket's number: a piece without a partner; and a row that says nothing to the other side."""


class Buckets(NamedTuple):
    """One side's pieces by bucket."""

    first_K: Ids
    """A piece of each bucket."""

    more_E: Ids
    """Further pieces whose mass goes into a bucket …"""

    bucket_E: Ids
    """… and which."""

    rest_R: Ids
    """Pieces of the rest. Empty on both sides where it is empty on one: then nothing could be compared with it."""


class Meeting(NamedTuple):
    """Every row of both models → its bucket, or REST, or CUT."""

    student_V: Ids
    teacher_V: Ids

    @property
    def size(self) -> int:
        """Number of buckets, the rest aside."""
        return int(max(self.student_V.max(initial=-1), self.teacher_V.max(initial=-1))) + 1

    def sides(self) -> tuple[Buckets, Buckets]:
        """Student's and teacher's pieces by bucket."""
        rests = [np.flatnonzero(side_V == REST) for side_V in self]
        if not all(map(len, rests)):
            rests = [rest[:0] for rest in rests]
        student, teacher = (_buckets(side_V, rest) for side_V, rest in zip(self, rests, strict=True))
        assert len(student.first_K) == len(teacher.first_K) == self.size, "a bucket has pieces of both sides"
        return student, teacher


def _buckets(side_V: Ids, rest_R: Ids) -> Buckets:
    ids = np.flatnonzero(side_V >= 0)
    order = ids[np.argsort(side_V[ids], kind="stable")]
    _, first = np.unique(side_V[order], return_index=True)
    more = np.delete(order, first)
    return Buckets(order[first], more, side_V[more], rest_R)


class Vocabulary(NamedTuple):
    """One side of the meeting."""

    spelling: Spelling
    rows: int
    """Embedding rows of the model."""

    roles: Mapping[str, int]
    """Role (`end_of_turn`, `eos`, `bos`, `pad`) → special piece."""


def meet(
    student: Vocabulary,
    teacher: Vocabulary,
    *,
    project: "PreTrainedTokenizerBase | None" = None,
    overrides: Mapping[int, int] | None = None,
) -> Meeting:
    """Pieces of equal bytes meet; special pieces by role, and those without one by their own spelling.

    project: the student's tokenizer, where the mass of a longer teacher piece is to go to the student's first piece of
    its bytes. overrides: teacher piece → student piece, which go before all else.
    """
    pairs = _Pairs(_empty(student), _empty(teacher))
    for role in ("end_of_turn", "eos", "bos", "pad"):
        if role in student.roles and role in teacher.roles:
            pairs.join(student.roles[role], teacher.roles[role])
    for piece, partner in (overrides or {}).items():
        pairs.join(partner, piece)
    for name, piece in teacher.spelling.special.items():
        namesake = student.spelling.special.get(name)
        if namesake is not None and pairs.is_free(namesake):
            pairs.join(namesake, piece)
    for said, ids in teacher.spelling.by_bytes.items():
        partners = student.spelling.by_bytes.get(said, [])
        for piece in ids if partners else []:
            pairs.join(partners[0], piece)
        for partner in partners[1:]:
            pairs.add(partner, like=partners[0])
    if project is not None:
        for piece, partner in _projected(student.spelling, teacher.spelling, pairs.teacher_V, project):
            pairs.join(partner, piece)
    return pairs.meeting()


def _empty(side: Vocabulary) -> Ids:
    """CUT for all that says nothing, REST for the pieces."""
    side_V = np.full(side.rows, CUT, dtype=np.int64)
    known = side.spelling.lengths[: side.rows]
    side_V[: len(known)][known > 0] = REST
    return side_V


class _Pairs:
    """Buckets under construction. Whoever came first stays: roles, then overrides, then equal bytes."""

    def __init__(self, student_V: Ids, teacher_V: Ids) -> None:
        self.student_V, self.teacher_V, self.size = student_V, teacher_V, 0

    def join(self, student: int, teacher: int) -> None:
        """Put a teacher piece into the bucket of a student piece."""
        if student >= len(self.student_V) or teacher >= len(self.teacher_V) or self.teacher_V[teacher] >= 0:
            return
        if self.student_V[student] < 0:
            self.student_V[student], self.size = self.size, self.size + 1
        self.teacher_V[teacher] = self.student_V[student]

    def is_free(self, student: int) -> bool:
        """The student's piece is in no bucket yet."""
        return student < len(self.student_V) and self.student_V[student] < 0

    def add(self, student: int, *, like: int) -> None:
        """Put a student piece into the bucket of another."""
        if self.is_free(student) and like < len(self.student_V):
            self.student_V[student] = self.student_V[like]

    def meeting(self) -> Meeting:
        """The finished maps."""
        return Meeting(self.student_V, self.teacher_V)


def _projected(
    student: Spelling, teacher: Spelling, teacher_V: Ids, tokenizer: "PreTrainedTokenizerBase"
) -> list[tuple[int, int]]:
    """(teacher piece without a partner, the student's first piece of its bytes), where that piece is certain.

    It is not where a student piece goes on beyond those bytes: what follows decides then whether the student says the
    longer piece or several short ones, and the mass is left to the rest.
    """
    first_piece = _first_piece(student, tokenizer)
    sorted_bytes = sorted(student.by_bytes)
    found = []
    for piece in np.flatnonzero(teacher_V == REST).tolist():
        said = teacher.bytes_of[piece]
        assert said, "only pieces that say something can be left over"
        if _goes_on(sorted_bytes, said):
            continue
        first = first_piece(said)
        if first is not None and said.startswith(student.bytes_of[first] or b"\0\0"):
            found.append((piece, first))
    return found


def _goes_on(sorted_bytes: Sequence[bytes], said: bytes) -> bool:
    """Some piece begins with these bytes and is longer."""
    after = bisect_right(sorted_bytes, said)
    return after < len(sorted_bytes) and sorted_bytes[after].startswith(said)


def _first_piece(student: Spelling, tokenizer: "PreTrainedTokenizerBase") -> Callable[[bytes], int | None]:
    """Bytes → the first piece that the student's model cuts them into, wherever in a text they stand."""
    model = tokenizer.backend_tokenizer.model

    def first(said: bytes) -> int | None:
        written = _written(student, said)
        pieces = model.tokenize(written) if written else []
        return int(pieces[0].id) if pieces else None

    return first


def _written(student: Spelling, said: bytes) -> str | None:
    """Bytes as the student's model reads them, past its normaliser; None where it can't."""
    if student.family == "byte-level":
        return letters_of(said)
    try:
        text = said.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if student.family == "sentencepiece":
        return text.replace(" ", SPACE)
    return text[1:] if text.startswith(" ") else None  # a part of a word can't be told from a whole one
