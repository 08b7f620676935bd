"""The second half of the verbalizer: how the teacher's probabilities are said in the student's pieces.

This version speaks `shared`: the same pieces under the same ids. Checkpoints of one family often have more embedding
rows than pieces, and not the same number (151,936 against 152,064 in Qwen2.5): the surplus is padding. It is cut from
both sides' logits, and that is said; comparing unequal widths, or padding the shorter side with zeros, is a known bug
elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dudi_kit.errors import VocabularyMismatch


@dataclass(frozen=True)
class Speaker:
    """One side of the mapping: its pieces, and how many embedding rows its model has."""

    name: str
    pieces: Mapping[str, int]
    rows: int
    end_of_turn: int


@dataclass(frozen=True)
class SharedVocabulary:
    """Ids 0 … size−1 mean the same piece on both sides; every other row is cut."""

    size: int
    reason: str
    """Why `shared` was picked, and what was cut, for the plan and the log."""


def decide(student: Speaker, teacher: Speaker, mapping: str) -> SharedVocabulary:
    """Pick the mapping between two tokenizers, or say why there is none.

    mapping: `auto` or `shared`; the recipe's checks have refused the others.
    Raises VocabularyMismatch with the first piece that differs.
    """
    by_id = [{i: piece for piece, i in side.pieces.items()} for side in (student, teacher)]
    both = by_id[0].keys() & by_id[1].keys()
    clash = min((i for i in both if by_id[0][i] != by_id[1][i]), default=None)
    if clash is not None:
        raise VocabularyMismatch(
            f"verbalizer.vocabulary.mapping: {mapping}: teacher {teacher.name} and the student have "
            f"different tokenizers: piece {clash:,} is {by_id[1][clash]!r} for the teacher and {by_id[0][clash]!r} for "
            "the student. This version needs the same pieces under the same ids; choose a teacher of the student's "
            "family. (The keys for other pairs will be `mapping: remap` and `mapping: align`; they are not built yet.)"
        )
    if student.end_of_turn != teacher.end_of_turn:
        raise VocabularyMismatch(
            f"verbalizer.vocabulary.mapping: {mapping}: the teacher ends its turn with "
            f"{by_id[1].get(teacher.end_of_turn)!r} and the student with {by_id[0].get(student.end_of_turn)!r}, so the "
            "teacher would teach the student never to stop. Give both the same end of turn with teacher.chat_template "
            "or student.chat_template."
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
