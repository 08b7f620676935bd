"""Which bytes each piece of a tokenizer stands for.

Two tokenizers write the same piece differently: a space is `Ġ` in byte-level BPE and `▁` in SentencePiece, `ก` is
`à¸ģ` in the one and `ก` or three byte pieces in the other, and WordPiece marks what does *not* begin a word. So raw
piece strings are never compared. How a tokenizer spells is read off the decoder in its own description.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dudi_kit.errors import VocabularyMismatch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Family = Literal["byte-level", "sentencepiece", "wordpiece"]

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "▁"

DECODERS: Mapping[str, Family] = {
    "ByteLevel": "byte-level",
    "ByteFallback": "sentencepiece",
    "Metaspace": "sentencepiece",
    "WordPiece": "wordpiece",
}
"""What a decoder, by its type in tokenizer.json, says about the pieces."""


@dataclass(frozen=True)
class Spelling:
    """The bytes of every piece of one tokenizer."""

    family: Family
    bytes_of: Sequence[bytes | None]
    """By id; None for pieces that are no text: special ones, and ids without a piece."""

    special: Mapping[str, int]
    """Special pieces by their own spelling."""

    single_bytes: Mapping[int, int]
    """Byte → the piece that stands for it alone, where there is one; for bytes that are no text together."""

    drops_first_space: bool
    """It writes a space in front of a text and drops it when reading: the first piece of a response is a space longer
    than what it says."""

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each piece; 0 for those that are no text."""
        return np.array([len(text or b"") for text in self.bytes_of], dtype=np.int64)

    @cached_property
    def by_bytes(self) -> dict[bytes, list[int]]:
        """The ids that say these bytes; first the one that the tokenizer uses for text, `A` before `<0x41>`."""
        found: dict[bytes, list[int]] = {}
        for piece, text in enumerate(self.bytes_of):
            if text:
                found.setdefault(text, []).append(piece)
        fallbacks = set(self.single_bytes.values())
        for ids in found.values():
            ids.sort(key=lambda piece: piece in fallbacks)
        return found

    def said(self, ids: Sequence[int]) -> bytes:
        """The bytes of a response; special pieces say nothing."""
        text = b"".join([self.bytes_of[i] or b"" for i in ids])
        return text[1:] if self.drops_first_space and text.startswith(b" ") else text

    def ends(self, ids: Sequence[int]) -> NDArray[np.int64]:
        """Number of bytes said after each token of a response."""
        ends = self.lengths[np.asarray(ids, dtype=np.int64)].cumsum()
        first = next((text for i in ids if (text := self.bytes_of[i])), b"")
        return np.maximum(ends - 1, 0) if self.drops_first_space and first.startswith(b" ") else ends


def spelling_of(tokenizer: "PreTrainedTokenizerBase", *, who: str) -> Spelling:
    """How a tokenizer spells. VocabularyMismatch: it is of no family that we can read."""
    description = _description(tokenizer, who)
    family = _family(description, who)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    spell = _SPELLERS[family]
    pieces = tokenizer.get_vocab()
    bytes_of: list[bytes | None] = [None] * (max(pieces.values(), default=-1) + 1)
    for piece, i in pieces.items():
        if i not in special:
            bytes_of[i] = spell(piece)
    named = {piece: i for piece, i in pieces.items() if i in special}
    return Spelling(family, bytes_of, named, _single_bytes(family, pieces), _drops_first_space(family, description))


def _description(tokenizer: "PreTrainedTokenizerBase", who: str) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise VocabularyMismatch(
            f"{who}: {type(tokenizer).__name__} has no tokenizer.json, so there is no telling which bytes its pieces "
            "stand for. Save a fast version of the tokenizer beside the weights, or choose a teacher and a student "
            "with the same tokenizer."
        )
    described: dict[str, Any] = json.loads(backend.to_str())
    return described


def _family(description: dict[str, Any], who: str) -> Family:
    steps = list(_steps(description.get("decoder"), "decoders"))
    found = next((DECODERS[step["type"]] for step in steps if step["type"] in DECODERS), None)
    if found is None and any(step.get("pattern") == {"String": SPACE} for step in steps):
        found = "sentencepiece"
    if found is None:
        named = ", ".join(step["type"] for step in steps) or "none"
        raise VocabularyMismatch(
            f"{who}: its tokenizer has the decoder {named}: neither byte-level BPE, nor SentencePiece, nor WordPiece, "
            "so there is no telling which bytes its pieces stand for. Choose a teacher and a student with the same "
            "tokenizer."
        )
    return found


def _steps(part: dict[str, Any] | None, inner: str) -> Iterator[dict[str, Any]]:
    """A component of tokenizer.json, or those of a sequence."""
    if part is not None and part["type"] == "Sequence":
        for step in part[inner]:
            yield from _steps(step, inner)
    elif part is not None:
        yield part


def _drops_first_space(family: Family, description: dict[str, Any]) -> bool:
    if family == "wordpiece":
        return True
    if family == "sentencepiece":
        steps = _steps(description["decoder"], "decoders")
        return any(
            (step["type"] == "Strip" and step["start"] > 0)
            or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
            for step in steps
        )
    steps = _steps(description.get("pre_tokenizer"), "pretokenizers")
    return any(step["type"] == "ByteLevel" and step["add_prefix_space"] for step in steps)


def _alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: a printable byte is its own letter, the others follow from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _alphabet()
_LETTER_OF = {byte: letter for letter, byte in _BYTE_OF.items()}


def letters_of(said: bytes) -> str:
    """Bytes in GPT-2's letters."""
    return "".join([_LETTER_OF[byte] for byte in said])


def _byte_level(piece: str) -> bytes:
    # A piece that a user added is not written in the alphabet.
    if all(letter in _BYTE_OF for letter in piece):
        return bytes([_BYTE_OF[letter] for letter in piece])
    return piece.encode("utf-8", "replace")


def _sentencepiece(piece: str) -> bytes:
    if match := BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace(SPACE, " ").encode("utf-8", "replace")


def _wordpiece(piece: str) -> bytes:
    return (piece[2:] if piece.startswith("##") else f" {piece}").encode("utf-8", "replace")


_SPELLERS: Mapping[Family, Callable[[str], bytes]] = {
    "byte-level": _byte_level,
    "sentencepiece": _sentencepiece,
    "wordpiece": _wordpiece,
}


def _single_bytes(family: Family, pieces: Mapping[str, int]) -> dict[int, int]:
    if family == "byte-level":
        return {byte: pieces[letter] for letter, byte in _BYTE_OF.items() if letter in pieces}
    matches = ((BYTE_PIECE.fullmatch(piece), i) for piece, i in pieces.items()) if family == "sentencepiece" else ()
    return {int(match[1], 16): i for match, i in matches if match}
