"""How the teacher reads what the student said: its own tokens, cut at common byte boundaries."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dudi_kit.verbalizer.vocabulary.mapping import MappedVocabulary, Wish, decide
from dudi_kit.verbalizer.vocabulary.reading import Reading
from tests.verbalizer.vocabulary.tiny import byte_level, sentencepiece, speaker, tokenise, wordpiece

THAI, TAMIL, BURMESE, KHMER = "แมวอยู่ใต้โต๊ะ", "பூனை மேசையின் கீழ்", "ကြောင်သည်", "ឆ្មានៅក្រោមតុ"
FARMER, NFD = "👩‍🌾 เก็บ", unicodedata.normalize("NFD", "tiếng Việt é")
TEXTS = [THAI, TAMIL, BURMESE, KHMER, FARMER, NFD, "tiếng Việt", " a b", "x\n\ny"]

COARSE = ["แมว", "อยู่", "பூனை", "tiếng", " Việt", "👩‍🌾", "ab", "abc"]
"""Texts that a tokenizer has as pieces."""


def joint(student: Any, teacher: Any) -> MappedVocabulary:
    made = decide(speaker(student, "student"), speaker(teacher, "teacher"), Wish("align"))
    assert isinstance(made, MappedVocabulary)
    return made


def read(student: Any, teacher: Any, text: str, *, ended: bool = True) -> tuple[Reading, list[int]]:
    response = tokenise(student, text) + ([student.eos_token_id] if ended else [])
    return joint(student, teacher).read(response), response


def shown(student: Any, teacher: Any, text: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Texts of the paired tokens, and of the spans with the numbers of tokens on both sides."""
    reading, response = read(student, teacher, text)
    paired, spans, _ = reading.alignment
    word = lambda made, ids: made.decode(ids)  # noqa: E731
    pairs = [(word(student, [response[i]]), word(teacher, [reading.ids[j]])) for i, j in paired.tolist()]
    stretches = [(word(student, response[a:b]), f"{b - a}:{d - c}") for a, b, c, d in spans.tolist()]
    return pairs, stretches


def test_pieces_of_equal_bytes_are_paired_and_the_rest_are_spans_by_hand() -> None:
    student, teacher = byte_level("แมว", " ก", "abc"), sentencepiece("แมว", "กข", letters="ก")
    pairs, spans = shown(student, teacher, "แมว กขabc")
    assert pairs == [("แมว", "แมว"), ("<end>", "<end>")]
    # the student: ' ก', three bytes of ข, 'abc'; the teacher: ' ', 'กข', then a letter each or byte pieces
    assert spans == [(" กข", "4:2"), ("abc", "1:3")]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "teacher", [byte_level(*COARSE), sentencepiece(*COARSE), sentencepiece(*COARSE, prefix_space=True)]
)
@pytest.mark.parametrize("student", [byte_level("แม", "วอ", "tiế"), sentencepiece("วอ", "ng", letters="แมยู่")])
def test_every_token_is_taught_and_both_sides_say_the_same(student: Any, teacher: Any, text: str) -> None:
    reading, response = read(student, teacher, text)
    mapped = joint(student, teacher)
    said, heard = mapped.reader.student.said(response), mapped.reader.teacher.said(reading.ids)  # type: ignore[union-attr]
    assert said == heard == text.encode()
    assert reading.alignment.untaught == 0
    covered = sorted(
        [*reading.alignment.paired_F2[:, 0].tolist()]
        + [i for a, b, *_ in reading.alignment.spans_S4.tolist() for i in range(a, b)]
    )
    assert covered == list(range(len(response)))


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_is_taught_whole(text: str) -> None:
    for student, teacher in PAIRS:
        reading, _ = read(student, teacher, text)
        assert reading.alignment.untaught == 0


PAIRS = [(byte_level("แมว", "ab"), sentencepiece("มว", "abc")), (sentencepiece("ab", "กา"), byte_level("กา", " a"))]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=12), st.booleans())
def test_no_sequence_of_pieces_makes_it_stumble(ids: list[int], ended: bool) -> None:
    """Bytes that are no text, characters cut off at the end, pieces of every kind."""
    student, teacher = PAIRS[0]
    response = [i for i in ids if i < len(student) - 1] + ([student.eos_token_id] if ended else [])
    reading = joint(student, teacher).read(response)
    alignment = reading.alignment
    assert 0 <= alignment.untaught <= len(response)
    if ended:
        assert reading.ids[-1] == teacher.eos_token_id
        assert alignment.paired_F2[-1].tolist() == [len(response) - 1, len(reading.ids) - 1]
        assert alignment.untaught == 0


def test_a_sample_cut_inside_a_character_is_taught_up_to_it_and_the_tail_is_counted() -> None:
    student, teacher = byte_level("แมว"), sentencepiece("แมว", "กา")
    response = tokenise(student, "แมวก")[:-1]  # the last character lacks its last byte
    reading = joint(student, teacher).read(response)
    assert teacher.decode(reading.ids) == "แมว"
    assert reading.alignment.paired_F2.tolist() == [[0, 0]]
    assert reading.alignment.untaught == 2
    assert teacher.eos_token_id not in reading.ids, "a cut sample has no end to be rewarded for"


def test_bytes_in_the_middle_that_are_no_text_are_read_as_byte_pieces() -> None:
    student, teacher = byte_level("ab"), sentencepiece("ab")
    broken = tokenise(student, "ก")[:1]
    reading = joint(student, teacher).read([*tokenise(student, "ab"), *broken, *tokenise(student, "ab")])
    assert teacher.convert_ids_to_tokens(reading.ids) == ["ab", "<0xE0>", "ab"]
    assert reading.alignment.paired_F2.tolist() == [[0, 0], [1, 1], [2, 2]]


def test_text_that_the_teacher_normalises_faces_what_it_becomes() -> None:
    student, teacher = byte_level("e", "\u0301"), byte_level("é", nfc=True)
    pairs, spans = shown(student, teacher, "xe\u0301y")
    assert [mine for mine, _ in pairs] == ["x", "y", "<end>"]
    assert spans == [("e\u0301", "2:1")]


def test_letters_that_the_teacher_loses_are_untaught_and_the_text_around_them_is_not() -> None:
    student, teacher = byte_level("cat", "ก"), wordpiece("cat", "dog", "##s")
    reading, response = read(student, teacher, "catก")
    assert teacher.convert_ids_to_tokens(reading.ids) == ["[UNK]", "<end>"]
    assert reading.alignment.untaught == len(response) - 1
    loses = "the {}'s tokenizer loses letters".format
    assert joint(student, teacher).losses("catก", response, cut=False) == [loses("teacher")]
    assert joint(student, teacher).losses("cat", tokenise(student, "cat"), cut=False) == []
    assert joint(teacher, student).losses("catก", tokenise(teacher, "catก"), cut=False) == [loses("student")]
    spaced = joint(student, wordpiece("a", ",")).losses("a,a", tokenise(student, "a,a"), cut=False)
    assert spaced == ["the teacher's tokenizer rewrites spaces"]


def test_a_piece_with_the_space_that_a_tokenizer_drops_is_not_taken_for_one_without() -> None:
    """`▁ab` at the beginning says `ab`; inside a text it says ` ab`. Only the bytes of the place may meet."""
    student, teacher = sentencepiece(" ab", prefix_space=True), byte_level("ab", " ab")
    pairs, spans = shown(student, teacher, "ab ab")
    assert [mine for mine, _ in pairs] == ["ab", "<end>"]
    assert spans == [("ab", "1:1")]
    reading, _ = read(student, teacher, "ab ab")
    assert teacher.convert_ids_to_tokens(reading.ids) == ["ab", "Ġab", "<end>"]


def test_wordpiece_is_lined_up_though_it_spaces_out_what_it_reads() -> None:
    student, teacher = byte_level("a", " b", ","), wordpiece("a", "b", ",")
    reading, _ = read(student, teacher, "a, b")
    assert reading.alignment.untaught == 0
    assert len(reading.alignment.paired_F2) >= 2


def test_a_reading_longer_than_the_teachers_context_is_cut_there() -> None:
    student, teacher = byte_level("abc", "กา"), byte_level("ab")
    whole, _ = read(student, teacher, "abcกา")
    part = whole.within(3)
    assert part.ids == whole.ids[:3]
    assert part.alignment.untaught == len(tokenise(student, "กา")) + 1
    assert whole.within(100) is whole


def test_an_empty_response_has_nothing_to_teach() -> None:
    reading = joint(*PAIRS[0]).read([])
    assert (reading.ids, reading.alignment.untaught) == ([], 0)
