"""Which pieces teacher and student share, or the sentence that says why there is no such thing."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dudi_kit.errors import VocabularyMismatch
from dudi_kit.verbalizer.vocabulary.mapping import SharedVocabulary, Speaker, Wish, shared
from dudi_kit.verbalizer.vocabulary.mapping import decide as decide_mapping
from tests.verbalizer.vocabulary import tiny
from tests.verbalizer.vocabulary.tiny import BYTES, fast

PIECES = ["<eos>", "<end>", "a", "b", "ab", "ba"]


def speaker(name: str, pieces: list[str] | dict[str, int], rows: int | None = None, end: int = 1) -> Speaker:
    table = pieces if isinstance(pieces, dict) else {piece: i for i, piece in enumerate(pieces)}
    # Whether two sides are shared is seen in their pieces: no tokenizer is asked.
    return Speaker(name, table, rows if rows is not None else len(table), end, (end,), None, lambda text: [])  # type: ignore[arg-type]


def decide(student: Speaker, teacher: Speaker, mapping: str) -> SharedVocabulary:
    return shared(student, teacher, mapping)


def test_the_same_tokenizer_is_shared_whole_and_nothing_is_cut() -> None:
    for mapping in ("auto", "shared"):
        found = decide(speaker("student", PIECES), speaker("teacher", PIECES), mapping)
        assert found.size == 6
        assert found.reason == "shared: teacher and student have the same 6 pieces under the same ids"


def test_padded_rows_are_cut_and_the_notice_has_the_numbers() -> None:
    pieces = {f"p{i}": i for i in range(151_665)}
    found = decide(speaker("student", pieces, 151_936), speaker("teacher", pieces, 152_064), "auto")
    assert found.size == 151_665
    assert "the same 151,665 pieces" in found.reason
    assert "271 of the student's 151,936 and 399 of the teacher's 152,064 rows" in found.reason


def test_only_the_side_that_is_cut_is_named() -> None:
    reason = decide(speaker("student", PIECES), speaker("teacher", PIECES, 9), "shared").reason
    assert reason.endswith("cut as padding or unknown to the other side: 3 of the teacher's 9 rows")


def test_the_shared_vocabulary_ends_before_a_piece_that_one_side_lacks() -> None:
    gap = {piece: i for i, piece in enumerate(PIECES) if i != 3}
    assert decide(speaker("student", gap, rows=6), speaker("teacher", PIECES), "auto").size == 3
    assert decide(speaker("student", PIECES), speaker("teacher", gap, rows=6), "auto").size == 3


def test_pieces_at_the_end_that_one_side_alone_knows_are_cut() -> None:
    longer = [*PIECES, "<tool>", "<image>"]
    teacher_knows_more = decide(speaker("student", PIECES), speaker("teacher", longer), "auto")
    assert teacher_knows_more.size == 6
    assert "2 of the teacher's 8 rows" in teacher_knows_more.reason
    student_knows_more = decide(speaker("student", longer), speaker("teacher", PIECES, 16), "auto")
    assert student_knows_more.size == 6
    assert "2 of the student's 8 and 10 of the teacher's 16 rows" in student_knows_more.reason


@pytest.mark.parametrize(("student_rows", "teacher_rows"), [(6, 4), (4, 6), (5, 5), (6, 9), (2, 3)])
def test_the_shared_vocabulary_is_inside_both_models(student_rows: int, teacher_rows: int) -> None:
    found = decide(speaker("student", PIECES, student_rows), speaker("teacher", PIECES, teacher_rows), "auto")
    assert found.size == min(student_rows, teacher_rows, len(PIECES))


def test_another_order_of_pieces_is_not_shared_and_the_first_that_differs_is_named_with_the_keys_to_set() -> None:
    swapped = ["<eos>", "<end>", "a", "ab", "b", "ba"]
    with pytest.raises(VocabularyMismatch) as caught:
        decide(speaker("student", PIECES), speaker("org/teacher", swapped), "shared")
    said = str(caught.value)
    assert said.startswith("verbalizer.vocabulary.mapping: shared: ")
    assert "teacher org/teacher and the student have different tokenizers" in said
    assert "piece 3 is 'ab' for the teacher and 'b' for the student" in said
    assert "to auto, remap or align" in said
    assert "choose a teacher of the student's family" in said


def test_one_differing_piece_among_many_is_found() -> None:
    pieces = {f"p{i}": i for i in range(3_000)}
    other = {("x" if i == 2_500 else f"p{i}"): i for i in range(3_000)}
    with pytest.raises(VocabularyMismatch, match="piece 2,500 is 'x' for the teacher and 'p2500' for the student"):
        decide(speaker("student", pieces), speaker("teacher", other), "shared")


def test_another_end_of_turn_is_refused_with_both_pieces_and_the_keys_that_set_it() -> None:
    with pytest.raises(VocabularyMismatch) as caught:
        decide(speaker("student", PIECES, end=1), speaker("teacher", PIECES, end=0), "auto")
    said = str(caught.value)
    assert "teacher ends its turn with '<eos>' and the student with '<end>'" in said
    assert "teacher.chat_template" in said
    assert "student.chat_template" in said


def test_tokenizers_without_one_piece_in_common_are_refused() -> None:
    far = {f"q{i}": i + 100 for i in range(4)}
    with pytest.raises(VocabularyMismatch):
        decide(speaker("student", PIECES), speaker("teacher", far, 104, end=100), "auto")


def test_an_end_of_turn_that_the_teachers_model_has_no_row_for_is_refused() -> None:
    late = ["a", "b", "ab", "<end>"]
    with pytest.raises(VocabularyMismatch, match="<end>"):
        decide(speaker("student", late, end=3), speaker("teacher", late, 3, end=3), "auto")


def test_the_same_pieces_and_ids_with_other_merges_are_aligned_and_not_shared() -> None:
    """`abc` is ab·c to the one and a·bc to the other; each would read the other's tokens as it never has."""

    def merging(*merges: tuple[str, str]) -> Any:
        vocabulary = {piece: i for i, piece in enumerate([*BYTES, "ab", "bc"])}
        made = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
        return tiny.speaker(fast(made))

    one, other = merging(("a", "b"), ("b", "c")), merging(("b", "c"), ("a", "b"))
    assert one.pieces == other.pieces
    texts = ["abc", "cab", "aabcc"]
    assert decide_mapping(one, one, Wish("auto"), texts).mapping == "shared"
    assert decide_mapping(one, other, Wish("auto"), texts).mapping == "align"
    assert decide_mapping(one, other, Wish("auto"), ["cab", "bca"]).mapping == "shared"
    wished = decide_mapping(one, other, Wish("shared"), texts)
    assert wished.mapping == "shared"
    assert "they cut 2 of 3 responses in other places" in wished.reason
