"""Tokens as marked text in a terminal: what is in the loss, what only the teacher reads, what was cut, and each border.

Colours tell kinds and shades tell neighbouring tokens apart. Without colours (NO_COLOR, a pipe, a plain terminal)
brackets and bars do.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from dudi_kit.data.encode import Encoder
from dudi_kit.data.pieces import Piece, readable


class Look(NamedTuple):
    """How tokens of a kind look: with colours, in two shades by turns, and without."""

    shades: tuple[str, str]
    opening: str
    closing: str
    plain: str
    """Style that needs no colour."""

    meaning: str


class Kind(Enum):
    """What becomes of tokens."""

    PROMPT = Look(("#dddddd on #303030", "#dddddd on #484848"), "", "", "", "read, not in the loss")
    LOSS = Look(("bold #ffffff on #0b5d1e", "bold #ffffff on #17803a"), "⟦", "⟧", "underline", "in the loss: learned")
    UNREAD = Look(("#999999 on #202020", "#999999 on #282828"), "(", ")", "dim", "read by no signal")
    DEMONSTRATION = Look(
        ("#ffffff on #4a2a8a", "#ffffff on #6440a8"), "«", "»", "italic", "demonstration z: read by the teacher alone"
    )
    CUT = Look(("strike #ffd0d0 on #6b1414", "strike #ffd0d0 on #8c2020"), "✂⟨", "⟩", "strike", "cut: read by nobody")


OF_RESPONSE = frozenset({Kind.LOSS, Kind.UNREAD, Kind.CUT})
"""Kinds of a response, whose end of turn is marked; it is tokenised apart from the prompt, and cut between tokens."""


class Span(NamedTuple):
    """Tokens of one kind that follow each other."""

    kind: Kind
    ids: list[int]


class Cell(NamedTuple):
    """A stretch of text that is not broken over lines."""

    text: str
    style: str
    ends_line: bool = False


BORDER, END_OF_TURN, LINE_BREAK = "│", "∎", "⏎"
SPECIAL, COUNT = "#7fe0f0", "#ffb454"
BARE = "dim"
"""Of signs that are no part of the text."""

SMALL = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class Marker:
    """Writes spans for one console."""

    def __init__(self, console: Console) -> None:
        self.coloured = console.color_system is not None and not console.no_color
        self.width = max(console.width, 20)
        self.kinds: set[Kind] = set()
        """Those that were shown, for the legend."""

    def lines(self, encoder: Encoder, spans: Sequence[Span], *, indent: str) -> Iterator[Text]:
        """The spans as lines that fit the console."""
        line, width = Text(indent), len(indent)
        for cell in self._cells(encoder, spans):
            size = cell_len(cell.text)
            if width + size > self.width and width > len(indent) and size:
                yield line
                line, width = Text(indent), len(indent)
            line.append(cell.text, style=cell.style)
            width += size
            if cell.ends_line:
                yield line
                line, width = Text(indent), len(indent)
        if width > len(indent):
            yield line

    def legend(self) -> list[Text]:
        """What the marks mean, of those that were used."""
        kinds = [kind for kind in Kind if kind in self.kinds]
        shown = [Text.assemble(self._sample(kind), f" {kind.value.meaning}") for kind in kinds]
        border = "shades" if self.coloured else BORDER
        signs = f"{border} tell tokens apart   ₃ made of 3 tokens   {LINE_BREAK} line break   {END_OF_TURN} end of turn"
        return [*shown, Text(signs, style="dim")]

    def _sample(self, kind: Kind) -> Text:
        look = kind.value
        if self.coloured:
            return Text(" abc ", style=look.shades[0])
        return Text(f"{look.opening}abc{look.closing}", style=look.plain)

    def _cells(self, encoder: Encoder, spans: Sequence[Span]) -> Iterator[Cell]:
        number = 0
        for kind, pieces in _by_kind(encoder, spans):
            self.kinds.add(kind)
            look = kind.value
            ends = encoder.end_of_turn_id if kind in OF_RESPONSE else None
            if not self.coloured and look.opening:
                yield Cell(look.opening, BARE)
            for place, piece in enumerate(pieces, start=1):
                number += 1
                style = look.shades[number % 2] if self.coloured else look.plain
                border = BORDER if place < len(pieces) else look.closing
                yield from self._piece(piece, style, "" if self.coloured else border, ends=piece.ids[-1] == ends)

    def _piece(self, piece: Piece, style: str, border: str, *, ends: bool) -> Iterator[Cell]:
        """border: what stands behind the piece; on its last line, even where a line break is all that it is."""
        *lines, last = [piece.text] if piece.special else _visible(piece.text).split("\n")
        for number, line in enumerate(lines, start=1):
            at_end = border if number == len(lines) and not last else ""
            yield from _fitting(f"{line}{LINE_BREAK}", style, self.width // 2)
            yield Cell(at_end, BARE, ends_line=True)
        if piece.special:
            style = f"{style} {SPECIAL}" if self.coloured else f"{style} bold".strip()
            yield Cell(piece.text + (END_OF_TURN if ends else ""), style)
        else:
            yield from _fitting(last, style, self.width // 2)
        if len(piece.ids) > 1:
            small = str(len(piece.ids)).translate(SMALL)
            yield Cell(small, f"{style} {COUNT}" if self.coloured else BARE)
        if last:
            yield Cell(border, BARE)


def _by_kind(encoder: Encoder, spans: Sequence[Span]) -> Iterator[tuple[Kind, list[Piece]]]:
    """Pieces with the kind of their first token. A prompt is one text, in which a border may cut a character."""
    for _, texts in groupby(spans, key=lambda span: span.kind if span.kind in OF_RESPONSE else None):
        tokens = [(token, span.kind) for span in texts for token in span.ids]
        kinds, pieces = [], readable(encoder.tokenizer, [token for token, _ in tokens])
        place = 0
        for piece in pieces:
            kinds.append(tokens[place][1])
            place += len(piece.ids)
        for kind, group in groupby(zip(kinds, pieces, strict=True), key=itemgetter(0)):
            yield kind, [piece for _, piece in group]


def _visible(text: str) -> str:
    """The text with its line breaks as they are and all other control characters shown."""
    text = text.replace("\r\n", "␍\n").replace("\t", "→").replace("\r", "␍")
    shown = "".join(
        c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf") else f"‹U+{ord(c):04X}›" for c in text
    )
    # A mark at the beginning of a line would be drawn onto the border in front of it.
    return f"◌{shown}" if shown and unicodedata.category(shown[0]).startswith("M") else shown


def _fitting(text: str, style: str, most: int) -> Iterator[Cell]:
    """A token as one cell, or as several where it would fill half a line and more."""
    parts = [""]
    for character in text:
        if cell_len(parts[-1]) >= most and not unicodedata.category(character).startswith("M"):
            parts.append("")
        parts[-1] += character
    yield from (Cell(part, style) for part in parts)
