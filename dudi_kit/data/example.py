"""What a row has become once it is read: the unit that all later rooms pass on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    """`system`, `user` or `assistant`."""

    content: str


class Exchange(NamedTuple):
    """A prompt with its reference response, as plain texts: what a demonstration shows."""

    language: str
    prompt: str
    response: str


class Origin(NamedTuple):
    """Where an example came from, for messages and for seeds."""

    dataset: str
    """Its name in the recipe."""

    file: str
    """Path, `hub:owner/name` or `builtin:train`."""

    row: int
    """Line of the file, or number of the row, counted from 1."""

    def __str__(self) -> str:
        return f"{self.file}:{self.row} ({self.dataset})"

    @property
    def key(self) -> str:
        """Names the row among those of its dataset and language, wherever the files lie."""
        return f"{self.dataset}:{self.file.rpartition('/')[2]}:{self.row}"


@dataclass(frozen=True, slots=True)
class Example:
    """One training or evaluation row: x, y and l of the method, and the English version where there is one."""

    prompt: tuple[Turn, ...]
    """x: every turn that is read before the answer; the last one is the user's."""

    response: str
    """y: the reference response, NFC."""

    language: str
    """l: a code of `dudi_kit.recipe.languages`."""

    english: Exchange | None
    """The same task in English, for demonstrations."""

    origin: Origin
    item: str | None = None
    """What rows of the same dataset share that say the same in several languages; None where nothing tells."""

    labels: str | None = None
    """Name of the set of labels that the response is one of, where the recipe declares it."""


def plain(turns: Sequence[Turn]) -> str:
    """A prompt for people: the one text, or every turn with its role before it."""
    if len(turns) == 1:
        return turns[0].content
    return "\n".join(f"{turn.role}: {turn.content}" for turn in turns)
