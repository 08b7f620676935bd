"""Tokens as people read them: whole characters, every id once, nothing invented."""

import unicodedata
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dudi_kit.data.pieces import readable
from dudi_kit.data.tokenizers import train_tokenizer
from tests.data.tiny import SENTENCES, chatml_tokenizer

BYTES = train_tokenizer(["plain English"], 300)
"""Knows no letter of any other script: each is two to four tokens."""


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("tokenizer", [BYTES, chatml_tokenizer()], ids=["bytes", "trained"])
@pytest.mark.parametrize("language", SENTENCES)
def test_pieces_add_up_to_the_text_and_to_the_ids(tokenizer: Any, language: str) -> None:
    text = unicodedata.normalize("NFC", SENTENCES[language])
    tokens = ids(tokenizer, text)
    pieces = readable(tokenizer, tokens)
    assert "".join(piece.text for piece in pieces) == text
    assert [token for piece in pieces for token in piece.ids] == tokens
    assert "�" not in text + "".join(piece.text for piece in pieces)
    assert not any(unicodedata.category(piece.text[0]).startswith("M") for piece in pieces)


def test_a_letter_of_three_bytes_is_one_piece_of_three_tokens() -> None:
    assert [(piece.text, len(piece.ids)) for piece in readable(BYTES, ids(BYTES, "aแ b"))] == [
        ("a", 1), ("แ", 3), (" ", 1), ("b", 1),
    ]  # fmt: skip


def test_a_vowel_sign_stays_on_its_letter_and_a_stacked_letter_under_its_own() -> None:
    assert [piece.text for piece in readable(BYTES, ids(BYTES, "கொ ดี က္က"))] == ["கொ", " ", "ดี", " ", "က္က"]


def test_half_a_character_at_a_cut_is_shown_as_its_ids() -> None:
    whole = ids(BYTES, "ab ไ")
    kept, cut = readable(BYTES, whole[:-1]), readable(BYTES, whole[-1:])
    first, second, third = whole[-3:]
    assert kept[-1] == (f"‹{first} {second}›", (first, second), False)
    assert cut == [(f"‹{third}›", (third,), False)]


def test_special_pieces_are_shown_by_name_and_stand_alone() -> None:
    tokens = ids(BYTES, "<|im_start|>a<|im_end|>")
    assert [(piece.text, piece.special) for piece in readable(BYTES, tokens)] == [
        ("<|im_start|>", True), ("a", False), ("<|im_end|>", True),
    ]  # fmt: skip
    assert readable(BYTES, []) == []


def test_a_replacement_character_of_the_text_itself_is_kept() -> None:
    text = "a\ufffd b\ufffd"
    assert "".join(piece.text for piece in readable(BYTES, ids(BYTES, text))).startswith("a\ufffd b")


def test_pieces_of_a_sentencepiece_vocabulary_keep_their_spaces_and_their_bytes() -> None:
    """Decoding drops the space in front of a text; a letter that is no piece falls back to its bytes."""
    words = {"<unk>": 0, "▁the": 1, "▁cat": 2, "s": 3, **{f"<0x{byte:02X}>": 4 + byte for byte in range(256)}}
    backend = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    thai = [4 + byte for byte in "แ".encode()]
    pieces = readable(tokenizer, [1, 2, 3, *thai, 1])
    assert [piece.text for piece in pieces] == [" the", " cat", "s", "แ", " the"]
    assert pieces[3].ids == tuple(thai)
