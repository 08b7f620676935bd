"""How the teacher reads what the student said: its own tokens of the same text, and which of them face which.

The student's token ids are never fed to a teacher with another tokenizer.
"""

import codecs
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dudi_kit.verbalizer.vocabulary.alignment import Alignment, Columns, Side, plain, stretches, text_of
from dudi_kit.verbalizer.vocabulary.meeting import Meeting
from dudi_kit.verbalizer.vocabulary.spelling import Spelling

NO_TEXT = re.compile("([\udc80-\udcff]+)")
"""Bytes that are no UTF-8, as lone surrogates."""


class Reading(NamedTuple):
    """One response as the teacher reads it."""

    ids: list[int]
    """The teacher's tokens."""

    alignment: Alignment

    def within(self, room: int) -> "Reading":
        """The part of it that has room in the teacher's context, in tokens; on the rest the teacher has no word."""
        if len(self.ids) <= room:
            return self
        paired_F2, spans_S4, tokens = self.alignment
        fits = Alignment(paired_F2[paired_F2[:, 1] < room], spans_S4[spans_S4[:, 3] <= room], tokens)
        return Reading(self.ids[: max(room, 0)], fits)


@dataclass(frozen=True)
class Permuted:
    """`remap`: the same tokens under other ids."""

    partner_V: Columns
    """Student piece → teacher piece; −1 where there is none."""

    def __call__(self, response: Sequence[int]) -> Reading:
        """The reading of a response whose pieces all have a partner."""
        column = np.arange(len(response))
        ids = self.partner_V[np.asarray(response, dtype=np.int64)].tolist()
        return Reading(ids, Alignment(np.stack([column, column], axis=1), _no_spans(), len(response)))


@dataclass(frozen=True)
class Aligned:
    """`align`: the teacher's own tokens of the same text."""

    student: Spelling
    teacher: Spelling
    meeting: Meeting
    stops: Sequence[int]
    """Pieces with which the student ends a response."""

    end_of_turn: int
    """The teacher's."""

    tokenise: Callable[[str], list[int]]
    """Text → the teacher's tokens of a response, without an end of turn."""

    def __call__(self, response: Sequence[int]) -> Reading:
        """The reading of any response. A cut one may end inside a character: the teacher has no word on those bytes."""
        ended = bool(response) and response[-1] in self.stops
        body = list(response[:-1] if ended else response)
        said = self.student.said(body)
        text, pending = _as_text(said, whole=ended)
        theirs, is_whole = self._teacher_ids(text)
        mine = Side(said, self.student.ends(body))
        cuts_S4, is_same_S = stretches(
            mine.until(len(said) - pending) if pending else mine,
            Side(self.teacher.said(theirs), self.teacher.ends(theirs)),
        )
        paired_F2, spans_S4 = self._sorted(cuts_S4[is_same_S], body, theirs)
        if ended and is_whole:  # an end is an end, whatever the piece
            theirs.append(self.end_of_turn)
            paired_F2 = np.concatenate([paired_F2, [[len(body), len(theirs) - 1]]])
        return Reading(theirs, Alignment(paired_F2, spans_S4, len(response)))

    def losses(self, text: str, response: Sequence[int], *, cut: bool) -> list[str]:
        """What is lost of a text: `the teacher's tokenizer loses letters`, `… rewrites spaces`, or the student's.

        Normalisation to NFC is no loss. cut: the response is only the beginning of the text, of which nothing is known.
        """
        said = {"teacher": self.teacher.said(self.tokenise(text))}
        said |= {} if cut else {"student": self.student.said(response)}
        found = ((who, _loss(text.encode("utf-8", "surrogatepass"), back)) for who, back in sorted(said.items()))
        return [f"the {who}'s tokenizer {loss}" for who, loss in found if loss]

    def _teacher_ids(self, text: str) -> tuple[list[int], bool]:
        """The teacher's tokens, and whether they are all of the text.

        Bytes that are no text are read byte by byte, as far as the teacher has such pieces.
        """
        ids: list[int] = []
        for part in NO_TEXT.split(text):
            if not NO_TEXT.fullmatch(part):
                ids += self.tokenise(part) if part else []
                continue
            single = [self.teacher.single_bytes.get(byte) for byte in part.encode("utf-8", "surrogateescape")]
            known = [piece for piece in single if piece is not None]
            ids += known
            if len(known) < len(single):
                return ids, False
        return ids, True

    def _sorted(self, cuts_S4: Columns, student: list[int], teacher: list[int]) -> tuple[Columns, Columns]:
        """One token facing one of the same bucket, and all else."""
        first, end, teacher_first, teacher_end = cuts_S4.T
        single = (end - first == 1) & (teacher_end - teacher_first == 1)
        pieces = np.asarray(student, dtype=np.int64)[first[single]]
        partners = np.asarray(teacher, dtype=np.int64)[teacher_first[single]]
        bucket = self.meeting.student_V[pieces]
        paired = single.copy()
        paired[single] = (bucket >= 0) & (bucket == self.meeting.teacher_V[partners])
        return np.stack([first[paired], teacher_first[paired]], axis=1), cuts_S4[~paired]


def _as_text(said: bytes, *, whole: bool) -> tuple[str, int]:
    """The text, and the number of bytes at its end that begin a character which is not finished; 0 if it is whole."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text = decoder.decode(said, final=whole)
    return text, len(decoder.getstate()[0])


def _loss(text: bytes, back: bytes) -> str | None:
    if text == back or _nfc(text) == _nfc(back):
        return None
    return "rewrites spaces" if plain(text) == plain(back) else "loses letters"


def _nfc(said: bytes) -> str:
    return unicodedata.normalize("NFC", text_of(said))


def _no_spans() -> Columns:
    return np.zeros((0, 4), dtype=np.int64)
