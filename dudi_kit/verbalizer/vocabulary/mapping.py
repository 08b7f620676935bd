"""Which mapping joins two tokenizers: `shared`, `remap` or `align`; and why.

Checkpoints of one family often have more embedding rows than pieces, and not the same number (151,936 against 152,064
in Qwen2.5): the surplus is padding. It is cut from both sides' logits, and that is said; comparing unequal widths, or
padding the shorter side with zeros, is a known bug elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from dudi_kit.data.tokenizers import fingerprint
from dudi_kit.errors import VocabularyMismatch
from dudi_kit.verbalizer.vocabulary.alignment import Columns
from dudi_kit.verbalizer.vocabulary.meeting import REST, Meeting, Meets, Vocabulary, meet
from dudi_kit.verbalizer.vocabulary.overrides import Named, Override, resolve
from dudi_kit.verbalizer.vocabulary.reading import Aligned, Permuted, Reading
from dudi_kit.verbalizer.vocabulary.spelling import spelling_of
from dudi_kit.verbalizer.vocabulary.tables import Tables

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Mode = Literal["auto", "shared", "remap", "align"]

ALIKE = 0.999
"""Share of the tokens of the recipe's own responses that must be cut alike for two tokenizers to count as the same
pieces under other ids. Not all of them: a few pieces may be missing on one side."""


@dataclass(frozen=True)
class Speaker:
    """One side of the mapping: its pieces, and how many embedding rows its model has."""

    name: str
    pieces: Mapping[str, int]
    rows: int
    end_of_turn: int
    stops: tuple[int, ...]
    """Pieces that end a response."""

    tokenizer: "PreTrainedTokenizerBase"
    tokenise: Callable[[str], list[int]]
    """Text → the tokens of a response, without its end of turn."""

    @property
    def roles(self) -> dict[str, int]:
        """Special pieces by what they are for; each piece has one role."""
        roles = {"end_of_turn": self.end_of_turn}
        for role in ("eos", "bos", "pad"):
            piece = getattr(self.tokenizer, f"{role}_token_id", None)
            if piece is not None and piece not in roles.values():
                roles[role] = int(piece)
        return roles


@dataclass(frozen=True)
class SharedVocabulary:
    """Ids 0 … size−1 mean the same piece on both sides; every other row is cut."""

    size: int
    reason: str
    """Why `shared` was picked, and what was cut, for the plan and the log."""

    mapping: Literal["shared"] = "shared"

    @property
    def sayable_V(self) -> NDArray[np.bool_]:  # noqa: N802 – the shape is in the name, as of the field of the other class
        """Pieces that the student may say in a rollout."""
        return np.ones(self.size, dtype=bool)

    def unread(self, response: Sequence[int]) -> list[int]:
        """Pieces of a response that the teacher can't read."""
        return [piece for piece in response if piece >= self.size]

    def read(self, response: Sequence[int]) -> Reading | None:
        """None: the teacher reads the student's own ids."""
        return None

    def losses(self, text: str, response: Sequence[int], *, cut: bool) -> list[str]:
        """None that concern the teacher: it reads the student's own ids."""
        return []


@dataclass(frozen=True)
class MappedVocabulary:
    """Pieces meet in buckets; under `align` the teacher reads its own tokens of the same text."""

    mapping: Literal["remap", "align"]
    reason: str
    meeting: Meeting
    reader: Permuted | Aligned
    sayable_V: NDArray[np.bool_]
    """Pieces that the student may say in a rollout: those that the teacher can read."""

    @property
    def size(self) -> int:
        """Number of buckets, the rest aside."""
        return self.meeting.size

    def unread(self, response: Sequence[int]) -> list[int]:
        """Pieces of a response that the teacher can't read; under `align` it reads any text."""
        if self.mapping == "align":
            return []
        known = len(self.sayable_V)
        return [piece for piece in response if piece >= known or not self.sayable_V[piece]]

    def read(self, response: Sequence[int]) -> Reading:
        """A response of the student as the teacher reads it."""
        return self.reader(response)

    def losses(self, text: str, response: Sequence[int], *, cut: bool) -> list[str]:
        """Who does not give back a text as it was written, and how. cut: the response is only its beginning."""
        return self.reader.losses(text, response, cut=cut) if isinstance(self.reader, Aligned) else []


JointVocabulary = SharedVocabulary | MappedVocabulary


@dataclass(frozen=True)
class Wish:
    """What the recipe says about the mapping."""

    mapping: Mode = "auto"
    meets: Meets = "project"
    overrides: Mapping[int, int] = field(default_factory=dict)
    """Teacher piece → student piece."""


def find_overrides(student: Speaker, teacher: Speaker, overrides: Sequence[Override]) -> dict[int, int]:
    """The lines of an overrides file as ids. InvalidRecipeError names those that no tokenizer can say."""
    named = [
        Named(who, spelling_of(side.tokenizer, who=who), side.pieces)
        for who, side in (("student", student), ("teacher", teacher))
    ]
    return resolve(overrides, *named)


def decide(
    student: Speaker, teacher: Speaker, wish: Wish, responses: Sequence[str] = (), tables: Tables | None = None
) -> JointVocabulary:
    """Pick the mapping between two tokenizers, or say why there is none.

    responses: of the recipe's own rows; `auto` takes `remap` where both tokenizers cut them alike. tables: where what
    takes long is kept.
    Raises VocabularyMismatch with the first piece that differs, or the reason why a tokenizer can't be read.
    """
    if wish.mapping == "shared" or (wish.mapping == "auto" and not wish.overrides):
        try:
            joint = shared(student, teacher, wish.mapping)
        except VocabularyMismatch:
            if wish.mapping == "shared":
                raise
        else:
            alike = _cut_the_same(student, teacher, responses)
            if alike >= ALIKE * len(responses):
                return joint
            if wish.mapping == "shared":
                own = f"they cut {len(responses) - alike:,} of {len(responses):,} responses in other places"
                return replace(joint, reason=f"{joint.reason}; {own}, where the teacher reads the student's tokens")
    pair = _Pair(student, teacher, wish, tables or Tables(None))
    alike, tokens = pair.cut_alike(responses)
    share = f"of {tokens:,} tokens of the responses both cut {alike:,} alike"
    if wish.mapping == "remap" or (wish.mapping == "auto" and tokens and alike >= ALIKE * tokens):
        return pair.remapped(f"remap: teacher and student have the same pieces under other ids; {share}")
    return pair.aligned(f"align: teacher and student have different tokenizers; {share}")


def restore(student: Speaker, teacher: Speaker, wish: Wish, size: int, reason: str, tables: Tables) -> JointVocabulary:
    """The mapping that a plan decided for. wish: with the mapping that was picked."""
    if wish.mapping == "shared":
        return SharedVocabulary(size, reason)
    pair = _Pair(student, teacher, wish, tables)
    made = pair.remapped("") if wish.mapping == "remap" else pair.aligned("")
    return replace(made, reason=reason)


def _cut_the_same(student: Speaker, teacher: Speaker, responses: Sequence[str]) -> int:
    """Number of responses of which both tokenizers make the same ids.

    Not so a larger one that begins with the smaller one's pieces, nor one that joins the same pieces by other merges:
    its model has hardly ever read the student's tokens of a text.
    """
    return sum(student.tokenise(text) == teacher.tokenise(text) for text in responses)


class _Pair:
    """Two tokenizers whose ids differ."""

    def __init__(self, student: Speaker, teacher: Speaker, wish: Wish, tables: Tables) -> None:
        self.student, self.teacher, self.wish, self.tables = student, teacher, wish, tables
        self.spelling = {who: spelling_of(side.tokenizer, who=who) for who, side in self._sides.items()}
        self._check_ends()

    @property
    def _sides(self) -> dict[str, Speaker]:
        return {"student": self.student, "teacher": self.teacher}

    def _check_ends(self) -> None:
        for who, side in self._sides.items():
            if side.end_of_turn >= side.rows:
                raise VocabularyMismatch(
                    f"{who}: its end of turn is piece {side.end_of_turn:,} of the tokenizer, and the model has "
                    f"{side.rows:,} rows: nothing could tell the student to stop. Choose a model whose weights know "
                    "all pieces of its tokenizer."
                )

    def remapped(self, reason: str) -> MappedVocabulary:
        meeting = self._meeting("exact", self.wish.overrides)
        partner_V = self._partners(self._meeting("exact"))
        return MappedVocabulary("remap", f"{reason}; {_sizes(meeting)}", meeting, Permuted(partner_V), partner_V >= 0)

    def _partners(self, meeting: Meeting) -> Columns:
        """Student piece → the piece by which the teacher reads it; −1 where there is none."""
        partner_V = np.full(len(meeting.student_V), -1, dtype=np.int64)
        special = meeting.student_V >= 0
        partner_V[special] = meeting.sides()[1].first_K[meeting.student_V[special]]
        for said, ids in self.spelling["student"].by_bytes.items():
            partners = self.spelling["teacher"].by_bytes.get(said, [])
            # A letter is read as the letter and its byte piece as the byte piece, where both sides have both.
            for i, piece in enumerate(ids if partners else []):
                if piece < len(partner_V):
                    partner_V[piece] = partners[min(i, len(partners) - 1)]
        partner_V[partner_V >= len(meeting.teacher_V)] = -1
        return partner_V

    def aligned(self, reason: str) -> MappedVocabulary:
        meeting = self._meeting(self.wish.meets, self.wish.overrides)
        text = f"{reason}; {_sizes(meeting)}, {self.wish.meets}"
        return MappedVocabulary("align", text, meeting, self._reader(meeting), self._sayable())

    def cut_alike(self, responses: Sequence[str]) -> tuple[int, int]:
        """Tokens of the responses that are one piece of equal bytes on both sides, and all tokens of them."""
        read = self._reader(self._meeting(self.wish.meets))
        readings = [read(self.student.tokenise(text)) for text in responses]
        return sum(len(r.alignment.paired_F2) for r in readings), sum(r.alignment.tokens for r in readings)

    def _reader(self, meeting: Meeting) -> Aligned:
        return Aligned(
            self.spelling["student"],
            self.spelling["teacher"],
            meeting,
            self.student.stops,
            self.teacher.end_of_turn,
            self.teacher.tokenise,
        )

    def _sayable(self) -> NDArray[np.bool_]:
        sayable_V = np.zeros(self.student.rows, dtype=bool)
        known = self.spelling["student"].lengths[: self.student.rows]
        sayable_V[: len(known)] = known > 0
        sayable_V[list(self.student.stops)] = True
        return sayable_V

    def _meeting(self, meets: Meets, overrides: Mapping[int, int] | None = None) -> Meeting:
        overrides = overrides or {}
        key = {
            "sides": [[fingerprint(side.tokenizer), side.rows, side.roles] for side in self._sides.values()],
            "meets": meets,
            "overrides": sorted(overrides.items()),
        }
        if (kept := self.tables.get(key)) is not None:
            return kept
        student, teacher = (Vocabulary(self.spelling[who], side.rows, side.roles) for who, side in self._sides.items())
        longer = self.student.tokenizer if meets == "project" else None
        made = meet(student, teacher, project=longer, overrides=overrides)
        self.tables.put(key, made)
        return made


def _sizes(meeting: Meeting) -> str:
    student, teacher = ((side_V >= 0).sum() for side_V in meeting)
    left = [
        f"{(side_V == REST).sum():,} of the {who}" for who, side_V in zip(("student", "teacher"), meeting, strict=True)
    ]
    return f"{student:,} of the student's pieces meet {teacher:,} of the teacher's, the rest is {' and '.join(left)}"


def shared(student: Speaker, teacher: Speaker, mapping: str) -> SharedVocabulary:
    """The same pieces under the same ids. VocabularyMismatch with the first that differs."""
    by_id = [{i: piece for piece, i in side.pieces.items()} for side in (student, teacher)]
    both = by_id[0].keys() & by_id[1].keys()
    clash = min((i for i in both if by_id[0][i] != by_id[1][i]), default=None)
    if clash is not None:
        raise VocabularyMismatch(
            f"verbalizer.vocabulary.mapping: {mapping}: teacher {teacher.name} and the student have "
            f"different tokenizers: piece {clash:,} is {by_id[1][clash]!r} for the teacher and {by_id[0][clash]!r} for "
            "the student. Set verbalizer.vocabulary.mapping to auto, remap or align, or choose a teacher of the "
            "student's family."
        )
    if student.end_of_turn != teacher.end_of_turn:
        raise VocabularyMismatch(
            f"verbalizer.vocabulary.mapping: {mapping}: the teacher ends its turn with "
            f"{by_id[1].get(teacher.end_of_turn)!r} and the student with {by_id[0].get(student.end_of_turn)!r}, so the "
            "teacher would teach the student never to stop. Give both the same end of turn with teacher.chat_template "
            "or student.chat_template, or set verbalizer.vocabulary.mapping to auto."
        )
    one_sided = by_id[0].keys() ^ by_id[1].keys()
    size = _shared_prefix(both, min(student.rows, teacher.rows, *one_sided))
    if student.end_of_turn >= size:
        raise VocabularyMismatch(
            f"verbalizer.vocabulary.mapping: {mapping}: the end of turn {by_id[0].get(student.end_of_turn)!r} is piece "
            f"{student.end_of_turn:,}, and the smaller model has {min(student.rows, teacher.rows):,} rows: nothing "
            "could tell the student to stop. Choose a model whose weights know all pieces of its tokenizer."
        )
    return SharedVocabulary(size, _reason(student, teacher, size))


def _shared_prefix(both: set[int], rows: int) -> int:
    """One more than the last id that both sides know, inside both models."""
    return max((i for i in both if i < rows), default=-1) + 1


def _reason(student: Speaker, teacher: Speaker, size: int) -> str:
    text = f"shared: teacher and student have the same {size:,} pieces under the same ids"
    cut = [
        f"{side.rows - size:,} of the {who}'s {side.rows:,}"
        for who, side in (("student", student), ("teacher", teacher))
        if side.rows > size
    ]
    return f"{text}; cut as padding or unknown to the other side: {' and '.join(cut)} rows" if cut else text
