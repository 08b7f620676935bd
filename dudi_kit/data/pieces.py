"""Token ids as people can read them: whole characters, whatever the tokenizer made of them.

A byte-level tokenizer cuts Thai, Burmese or Tamil letters into several tokens, each of which decodes to `�`; and a
token may begin with a vowel sign, which a terminal draws onto the letter before it. Such tokens are read together.
"""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HALF = "�"
MOST_BYTES = 4
"""Of a character in UTF-8: more tokens than these have no character in common."""

JOINERS = frozenset("\u200c\u200d")
STACKING = frozenset("\u1039\u17d2\u200d")
"""Signs of Burmese and Khmer that put the next letter under the one before, and the joiner of emoji."""

WORD_START = "▁"
"""How SentencePiece writes a space; decoding drops it in front of a text."""


class Piece(NamedTuple):
    """Some tokens and the text that they are together."""

    text: str
    ids: tuple[int, ...]
    """More than one where they share a character."""

    special: bool


def readable(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> list[Piece]:
    """The ids in order, each in one piece. What does not add up to a character, as at a cut, is shown as `‹ids›`."""
    special = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    pieces: list[Piece] = []
    before: list[int] = []
    pending: list[int] = []
    for token in ids:
        if token in special:
            pieces += _unfinished(tokenizer, before, pending)
            pieces.append(Piece(str(tokenizer.convert_ids_to_tokens(token)), (token,), special=True))
            before, pending = [], []
            continue
        pending.append(token)
        text = _text(tokenizer, before, pending)
        if not text.endswith(HALF) or len(pending) > MOST_BYTES:
            _append(pieces, Piece(text, tuple(pending), special=False))
            before, pending = pending, []
    return pieces + _unfinished(tokenizer, before, pending)


def _append(pieces: list[Piece], piece: Piece) -> None:
    """Add a piece, or what it goes on with to the piece before it."""
    last = pieces[-1] if pieces else None
    if last is None or last.special or not _goes_on(last.text, piece.text):
        pieces.append(piece)
    else:
        pieces[-1] = Piece(last.text + piece.text, (*last.ids, *piece.ids), special=False)


def _goes_on(before: str, text: str) -> bool:
    """Whether the text begins in the middle of what readers see as one character."""
    begins_with_mark = unicodedata.category(text[0]).startswith("M") or text[0] in JOINERS
    return before[-1] not in "\r\n" and (begins_with_mark or before[-1] in STACKING)


def _unfinished(tokenizer: "PreTrainedTokenizerBase", before: list[int], pending: list[int]) -> list[Piece]:
    if not pending:
        return []
    whole = _text(tokenizer, before, pending).rstrip(HALF)
    return [Piece(f"{whole}‹{' '.join(map(str, pending))}›", tuple(pending), special=False)]


def _text(tokenizer: "PreTrainedTokenizerBase", before: list[int], ids: list[int]) -> str:
    """The text that `ids` add to `before`: decoded alone, a token may lose the space in front of it."""
    head, whole = _decode(tokenizer, before), _decode(tokenizer, before + ids)
    text = whole[len(head) :] if whole.startswith(head) else _decode(tokenizer, ids)
    first = str(tokenizer.convert_ids_to_tokens(ids[0]))
    if not before and first.startswith(WORD_START) and not text.startswith(" "):
        text = f" {text}"
    return text or first


def _decode(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
