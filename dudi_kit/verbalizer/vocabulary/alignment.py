"""Which tokens of two tokenisations of one text face each other: both are cut at their common byte boundaries.

Columns are token numbers within a response. Between two successive common boundaries lies a stretch: one token facing
one token that means the same is `paired`, and both sides' distributions of it can be compared; anything else is a
`span`, of which only the two likelihoods can be.
"""

import unicodedata
from difflib import SequenceMatcher
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Columns = NDArray[np.int64]


class Alignment(NamedTuple):
    """How a response of the student's tokens and its reading in the teacher's face each other."""

    paired_F2: Columns
    """(student column, teacher column) of the tokens that face one token of the same meaning."""

    spans_S4: Columns
    """(first student column, the one after the last, first teacher column, the one after the last)."""

    tokens: int
    """Of the student's response."""

    @property
    def in_spans(self) -> int:
        """Student tokens inside spans."""
        return int((self.spans_S4[:, 1] - self.spans_S4[:, 0]).sum())

    @property
    def untaught(self) -> int:
        """Student tokens on which the teacher has no word."""
        return self.tokens - len(self.paired_F2) - self.in_spans


class Side(NamedTuple):
    """One tokenisation of a response, without its end of turn."""

    said: bytes
    ends_T: Columns
    """Bytes said after each token."""

    def until(self, length: int) -> "Side":
        """The tokens that end within the first `length` bytes."""
        return Side(self.said[:length], self.ends_T[self.ends_T <= length])


def stretches(student: Side, teacher: Side) -> tuple[Columns, NDArray[np.bool_]]:
    """Everything between common boundaries → (columns [S, 4] as in `spans_S4`, whether both sides say the same [S]).

    The two usually say the same bytes. Where a tokenizer rewrites what it reads (NFC, a lost space), the texts are
    matched first, and a stretch on which they differ by more than that is marked.
    """
    same = student.said == teacher.said
    ends_T = student.ends_T if same else _transferred(student, teacher)
    known = np.flatnonzero(ends_T > 0)
    common = np.intersect1d(ends_T[known], teacher.ends_T)
    # On both sides the last token that ends there: one without a byte of its own belongs to what comes before it.
    student_cuts = known[np.searchsorted(ends_T[known], common, side="right") - 1] + 1
    teacher_cuts = np.searchsorted(teacher.ends_T, common, side="right")
    cuts_S4 = np.stack([_before(student_cuts), student_cuts, _before(teacher_cuts), teacher_cuts], axis=1)
    if same:
        return cuts_S4, np.ones(len(cuts_S4), dtype=bool)
    return cuts_S4, np.array([_says_the_same(student, teacher, cut) for cut in cuts_S4.tolist()], dtype=bool)


def _before(cuts: Columns) -> Columns:
    """Where each stretch begins: at the end of the one before it."""
    return np.concatenate([np.zeros(1, dtype=np.int64), cuts])[:-1]


def _says_the_same(student: Side, teacher: Side, cut: list[int]) -> bool:
    first, end, teacher_first, teacher_end = cut
    return plain(_between(student, first, end)) == plain(_between(teacher, teacher_first, teacher_end))


def _between(side: Side, first: int, end: int) -> bytes:
    start = int(side.ends_T[first - 1]) if first else 0
    return side.said[start : int(side.ends_T[end - 1])]


def plain(said: bytes) -> str:
    """What has to be the same on both sides: the text in NFC, spaces aside."""
    return "".join(unicodedata.normalize("NFC", text_of(said)).split())


def text_of(said: bytes) -> str:
    """As text; bytes that are none stand for themselves as lone surrogates."""
    return said.decode("utf-8", "surrogateescape")


def _transferred(student: Side, teacher: Side) -> Columns:
    """The student's ends as numbers of the teacher's bytes; −1 where its text has no such place."""
    mine, theirs = text_of(student.said), text_of(teacher.said)
    my_bytes, their_bytes = _byte_offsets(mine), _byte_offsets(theirs)
    places: dict[int, int] = {}
    for kind, first, end, their_first, their_end in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        if kind == "equal":
            places |= {my_bytes[first + i]: their_bytes[their_first + i] for i in range(end - first)}
        places[my_bytes[end]] = their_bytes[their_end]  # of a rewritten stretch both ends are known, and nothing inside
    return np.array([places.get(end, -1) for end in student.ends_T.tolist()], dtype=np.int64)


def _byte_offsets(text: str) -> list[int]:
    """Where each character begins, in bytes, and where the text ends."""
    return [0, *accumulate(len(letter.encode("utf-8", "surrogateescape")) for letter in text)]
