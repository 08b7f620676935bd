"""Which bytes a piece stands for, in three families."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models

from dudi_kit.errors import VocabularyMismatch
from dudi_kit.verbalizer.vocabulary.spelling import spelling_of
from tests.verbalizer.vocabulary.tiny import byte_level, fast, sentencepiece, tokenise, wordpiece

TEXTS = ["แมวอยู่ใต้โต๊ะ", "பூனை மேசை", "ကြောင်", "ឆ្មា", "ແມວ", "tiếng Việt", "👩‍🌾 ok", "  two  spaces\n\ttab", "e\u0301 é"]


def saying(made: Any, text: str) -> str:
    return spelling_of(made, who="student").said(tokenise(made, text)).decode()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "made",
    [byte_level("แมว", "tiếng"), sentencepiece("แมว", " มเ", letters="eé"), sentencepiece("ok", prefix_space=True)],
    ids=["byte-level", "sentencepiece", "sentencepiece with a leading space"],
)
def test_pieces_of_a_text_say_its_bytes(made: Any, text: str) -> None:
    assert saying(made, text) == text


def test_the_same_piece_is_written_in_three_ways_and_has_the_same_bytes() -> None:
    for made, raw in ((byte_level(" ไป"), "ĠàEE"), (sentencepiece(" ไป"), "▁ไป"), (wordpiece("ไป"), "ไป")):
        spelling = spelling_of(made, who="student")
        (piece,) = spelling.by_bytes[" ไป".encode()]
        assert made.convert_ids_to_tokens(piece) == raw or made.convert_ids_to_tokens(piece).startswith("Ġà")


def test_families_are_told_from_the_decoder() -> None:
    assert [spelling_of(made, who="x").family for made in (byte_level(), sentencepiece(), wordpiece())] == [
        "byte-level",
        "sentencepiece",
        "wordpiece",
    ]


def test_a_byte_piece_is_that_byte_and_comes_after_the_letter_itself() -> None:
    spelling = spelling_of(sentencepiece(letters="A"), who="student")
    letter, byte_piece = spelling.by_bytes[b"A"]
    assert byte_piece == spelling.single_bytes[0x41] == 1 + 0x41
    assert letter > byte_piece


def test_special_pieces_say_nothing() -> None:
    made = byte_level("ab")
    spelling = spelling_of(made, who="student")
    assert spelling.bytes_of[made.eos_token_id] is None
    assert spelling.special == {"<end>": made.eos_token_id}
    assert spelling.said([*tokenise(made, "ab"), made.eos_token_id]) == b"ab"


def test_a_piece_that_was_added_outside_the_byte_alphabet_says_its_own_letters() -> None:
    made = byte_level("ab")
    made.add_tokens(["ฮะ"])
    assert spelling_of(made, who="student").bytes_of[len(made) - 1] == "ฮะ".encode()


def test_ends_count_the_bytes_said_without_the_leading_space_that_is_dropped() -> None:
    made = sentencepiece("ok", "ไป", prefix_space=True)
    spelling = spelling_of(made, who="student")
    ids = tokenise(made, "okไป")
    assert made.convert_ids_to_tokens(ids) == ["▁", "ok", "ไป"]
    assert spelling.ends(ids).tolist() == [0, 2, 8]


def test_wordpiece_marks_what_goes_on() -> None:
    made = wordpiece("un", "##do", "it")
    assert saying(made, "undo it") == "undo it"


def test_a_tokenizer_of_no_known_family_is_refused_with_its_decoder() -> None:
    other = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    other.decoder = decoders.CTC()
    with pytest.raises(VocabularyMismatch, match="teacher: its tokenizer has the decoder CTC"):
        spelling_of(fast(other), who="teacher")
    other.decoder = None
    with pytest.raises(VocabularyMismatch, match="has the decoder none"):
        spelling_of(fast(other), who="teacher")
