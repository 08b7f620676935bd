"""Which pieces meet, and what is left to the rest."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dudi_kit.errors import VocabularyMismatch
from dudi_kit.recipe.diagnostics import InvalidRecipeError
from dudi_kit.verbalizer.vocabulary.mapping import MappedVocabulary, Wish, decide, find_overrides
from dudi_kit.verbalizer.vocabulary.meeting import CUT, REST, Meeting
from dudi_kit.verbalizer.vocabulary.overrides import read_overrides
from dudi_kit.verbalizer.vocabulary.spelling import spelling_of
from dudi_kit.verbalizer.vocabulary.tables import Tables
from tests.verbalizer.vocabulary.tiny import byte_level, sentencepiece, speaker

KEY = {"sides": ["a", "b"], "meets": "exact"}


def joint(student: Any, teacher: Any, meets: Any = "exact", **options: Any) -> MappedVocabulary:
    made = decide(speaker(student, "student"), speaker(teacher, "teacher"), Wish("align", meets, **options))
    assert isinstance(made, MappedVocabulary)
    return made


def piece(made: Any, text: str) -> int:
    return spelling_of(made, who="x").by_bytes[text.encode()][0]


def meets(student: Any, teacher: Any, said: str, heard: str, how: Any = "exact") -> bool:
    meeting = joint(student, teacher, how).meeting
    bucket = meeting.student_V[piece(student, said)]
    return bool(bucket >= 0 and bucket == meeting.teacher_V[piece(teacher, heard)])


def test_pieces_of_equal_bytes_meet_however_they_are_written() -> None:
    student, teacher = byte_level(" ไป", "é"), sentencepiece(" ไป", letters="é")
    assert meets(student, teacher, " ไป", " ไป")
    assert meets(student, teacher, "é", "é")
    assert not meets(student, teacher, "é", " ไป")


def test_end_of_turn_meets_end_of_turn_whatever_it_is_called() -> None:
    student, teacher = byte_level("a", end="<eos>"), sentencepiece("a", end="<end_of_turn>")
    meeting = joint(student, teacher).meeting
    assert meeting.student_V[student.eos_token_id] == meeting.teacher_V[teacher.eos_token_id] >= 0


def test_special_pieces_without_a_partner_and_padded_rows_are_cut_and_never_sampled() -> None:
    student, teacher = byte_level("ab"), byte_level("abc")
    student.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    made = decide(speaker(student, rows=len(student) + 5), speaker(teacher), Wish("align"))
    assert isinstance(made, MappedVocabulary)
    tool = student.convert_tokens_to_ids("<tool>")
    assert made.meeting.student_V[tool] == CUT
    assert (made.meeting.student_V[len(student) :] == CUT).all()
    assert not made.sayable_V[tool]
    assert not made.sayable_V[len(student) :].any()
    assert made.sayable_V[student.eos_token_id]
    assert made.sayable_V[: tool - 1].all()


def test_exact_leaves_a_longer_piece_to_the_rest_and_project_gives_it_to_the_first_piece_of_its_bytes() -> None:
    student, teacher = byte_level("ab"), byte_level("abcd")
    assert joint(student, teacher).meeting.teacher_V[piece(teacher, "abcd")] == REST
    assert meets(student, teacher, "ab", "abcd", "project")
    assert meets(student, teacher, "ab", "abc", "project")
    assert meets(student, teacher, "ab", "ab", "project")


def test_project_leaves_to_the_rest_what_could_still_become_several_student_pieces() -> None:
    student, teacher = byte_level("ab", "ก", "abcde"), byte_level("abc", "กx")
    student_without_long = byte_level("ab", "ก")
    # with 'abcde' among the student's pieces, what follows 'abc' decides which piece it begins with
    lonely = byte_level("abcx")
    assert joint(student, lonely, "project").meeting.teacher_V[piece(lonely, "abcx")] >= 0
    gap = sentencepiece("abcde", letters="abcde")
    assert joint(gap, byte_level("ก"), "project").meeting.teacher_V[256] == REST, "a part of a letter can't be told"
    assert meets(student_without_long, teacher, "ab", "abc", "project")


def test_rests_are_compared_only_where_both_sides_have_one() -> None:
    longer, shorter = byte_level("ab", "cd"), byte_level("ab")
    for student, teacher in ((longer, shorter), (shorter, longer)):
        sides = joint(student, teacher).meeting.sides()
        assert [len(side.rest_R) for side in sides] == [0, 0]
    both = joint(byte_level("cd"), byte_level("ab")).meeting.sides()
    assert [len(side.rest_R) for side in both] == [1, 1]


def test_several_pieces_of_the_same_bytes_are_one_bucket() -> None:
    student, teacher = sentencepiece(letters="A"), byte_level("ab")
    meeting = joint(student, teacher).meeting
    bucket = meeting.student_V[piece(student, "A")]
    assert bucket == meeting.student_V[1 + 0x41] == meeting.teacher_V[piece(teacher, "A")]
    mine, theirs = meeting.sides()
    assert {int(mine.first_K[bucket]), *mine.more_E[mine.bucket_E == bucket].tolist()} == {
        1 + 0x41,
        piece(student, "A"),
    }
    assert theirs.first_K[bucket] == piece(teacher, "A")


# Overrides


def write(folder: Path, text: str) -> str:
    (folder / "pieces.yaml").write_text(text, encoding="utf-8")
    return str(folder / "pieces.yaml")


def overridden(student: Any, teacher: Any, file: str) -> dict[int, int]:
    return find_overrides(speaker(student), speaker(teacher), read_overrides(file))


def test_an_override_moves_a_teacher_piece_to_the_student_piece_that_is_named(tmp_path: Path) -> None:
    student, teacher = byte_level("กรุง"), byte_level("Bangkok")
    ids = overridden(student, teacher, write(tmp_path, '"Bangkok": "กรุง"\n'))
    assert ids == {piece(teacher, "Bangkok"): piece(student, "กรุง")}
    meeting = joint(student, teacher, overrides=ids).meeting
    assert meeting.teacher_V[piece(teacher, "Bangkok")] == meeting.student_V[piece(student, "กรุง")] >= 0


def test_an_override_goes_before_equal_bytes_but_not_before_the_end_of_turn(tmp_path: Path) -> None:
    student, teacher = byte_level("ab", "cd"), byte_level("ab", end="<stop>")
    ids = overridden(student, teacher, write(tmp_path, '"ab": "cd"\n"<stop>": "ab"\n'))
    meeting = joint(student, teacher, overrides=ids).meeting
    assert meeting.teacher_V[piece(teacher, "ab")] == meeting.student_V[piece(student, "cd")]
    assert meeting.teacher_V[teacher.eos_token_id] == meeting.student_V[student.eos_token_id]


def test_pieces_that_a_tokenizer_lacks_are_named_with_file_and_line_all_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, '"ab": "cd"\n"Bangkok": "กรุง"\n"ab": "xy"\n'.replace('"ab": "xy"', '" ab": "cd"'))
    with pytest.raises(InvalidRecipeError) as caught:
        overridden(byte_level("cd"), byte_level("ab"), file)
    said = str(caught.value)
    assert f"{file}:2:1: error[unknown-piece]: the teacher's tokenizer has no piece 'Bangkok'" in said
    assert f"{file}:2:12: error[unknown-piece]: the student's tokenizer has no piece 'กรุง'" in said
    assert f"{file}:3:1: error[unknown-piece]: the teacher's tokenizer has no piece ' ab'" in said
    assert "it has 'ab'" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- ab\n", "a mapping of teacher pieces to student pieces expected"),
        ("ab: 3\n", "a student piece expected, got 3"),
        ("ab: [cd]\n", "a student piece expected"),
        ("ab: cd\nab: cd\n", "the key 'ab' is here twice"),
        ("ab: &x cd\n", "anchors are not read"),
    ],
)
def test_an_overrides_file_of_another_form_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidRecipeError, match=words.replace("[", r"\[")):
        read_overrides(write(tmp_path, text))


# Which mapping


def test_auto_aligns_a_larger_tokenizer_that_begins_with_the_pieces_of_the_smaller_one() -> None:
    """The same ids below the smaller size, but text becomes other tokens."""
    student, teacher = byte_level("ab"), byte_level("ab", "abcd")
    plain = speaker(student), speaker(teacher)
    made = decide(*plain, Wish(), ["abcd abcd", "ab abcd"])
    assert made.mapping == "align"
    assert "of 12 tokens of the responses both cut 3 alike" in made.reason


def test_overrides_make_a_mapped_vocabulary_even_of_the_same_tokenizer() -> None:
    made = byte_level("ab", "cd")
    same = decide(speaker(made), speaker(made), Wish(overrides={piece(made, "ab"): piece(made, "cd")}), ["abcd"])
    assert isinstance(same, MappedVocabulary)
    assert same.mapping == "remap"
    assert same.read([piece(made, "ab")]).ids == [piece(made, "ab")], "what is read is what was said"


# Tables


def test_a_table_is_read_back_under_its_key_and_no_other(tmp_path: Path) -> None:
    kept, meeting = Tables(tmp_path / "tables"), Meeting(np.array([0, REST, CUT]), np.array([1, 0]))
    assert kept.get(KEY) is None
    kept.put(KEY, meeting)
    found = kept.get(KEY)
    assert found is not None
    assert [side.tolist() for side in found] == [[0, -1, -2], [1, 0]]
    assert kept.get(KEY | {"meets": "project"}) is None


def test_a_table_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    kept, meeting = Tables(tmp_path), Meeting(np.arange(500), np.arange(500))
    kept.put(KEY, meeting)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert kept.get(KEY) is None
    kept.put(KEY, meeting)
    assert kept.get(KEY) is not None


def test_what_was_decided_comes_back_from_the_tables_without_being_worked_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = speaker(byte_level("ab")), speaker(byte_level("abc"))
    first = decide(*sides, Wish("align", "project"), tables=Tables(tmp_path))
    monkeypatch.setattr("dudi_kit.verbalizer.vocabulary.mapping.meet", None)
    again = decide(*sides, Wish("align", "project"), tables=Tables(tmp_path))
    assert isinstance(first, MappedVocabulary)
    assert isinstance(again, MappedVocabulary)
    assert all((a == b).all() for a, b in zip(first.meeting, again.meeting, strict=True))


def test_other_tokenizers_have_other_tables(tmp_path: Path) -> None:
    for words in (["ab"], ["abc"], ["ab", "cd"]):
        decide(speaker(byte_level("ab")), speaker(byte_level(*words)), Wish("align"), tables=Tables(tmp_path))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_tokenizer_without_an_end_that_the_model_knows_is_refused() -> None:
    made = byte_level("ab")
    with pytest.raises(VocabularyMismatch, match=r"student: its end of turn is piece 257 .* 257 rows"):
        decide(speaker(made, rows=len(made) - 1), speaker(byte_level("cd")), Wish("align"))
