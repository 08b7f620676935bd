"""Answers as they come in, so that an evaluation that was stopped goes on where it was.

A line for each item, appended and flushed batch by batch. An item is known by what decides its answer: the model, the
token ids of its prompt and how it is to be answered. So a changed prompt, limit or model never finds an old answer, and
answers that are still right are found whatever else has changed. A line that a kill cut short is dropped.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dudi_kit.errors import EnvironmentLack
from dudi_kit.plan.layout import write_text


@dataclass(frozen=True)
class Said:
    """What a model said to one item."""

    key: str
    """What decides the answer, see `Answers.key`."""

    id: str
    """Of the item, for people."""

    response: str | None
    """None where only likelihoods were asked for."""

    tokens: int
    """Of the response, its end of turn not counted."""

    truncated: bool
    """It reached the longest answer before its end of turn."""

    nats: list[float | None]
    """−log p of each choice, or of the right answer alone; None where it is not finite."""


_SAID = TypeAdapter(Said)


class Answers:
    """The answers of one model to one task in one language, on disk and in memory."""

    def __init__(self, path: Path, model: str) -> None:
        """path: of the .jsonl file; what is there is read. model: identifies the weights."""
        self.path, self.model = path, model
        self._said = {said.key: said for said in _read(path)}

    def key(self, *facts: Any) -> str:
        """A name for an item. facts: all that decides the answer besides the model, as plain JSON values."""
        text = json.dumps([self.model, *facts], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def __contains__(self, key: str) -> bool:
        return key in self._said

    def __getitem__(self, key: str) -> Said:
        return self._said[key]

    def add(self, some: Iterable[Said]) -> None:
        """Keep answers; when this returns they are on disk. EnvironmentLack: the disk is full."""
        new = list(some)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(_line(said) for said in new))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise EnvironmentLack(
                f"can't write {self.path}: {reason}. Free some space; older answers are kept."
            ) from error
        self._said |= {said.key: said for said in new}

    def keep_only(self, keys: Iterable[str]) -> None:
        """Write the file anew with these answers, in this order: those of other prompts or of an older model go."""
        kept = {key: self._said[key] for key in keys}
        write_text(self.path, "".join(map(_line, kept.values())))
        self._said = kept


def _line(said: Said) -> str:
    return json.dumps(asdict(said), ensure_ascii=False, allow_nan=False) + "\n"


def _read(path: Path) -> list[Said]:
    """Whole lines; one that a kill or a full disk cut short is none, and what follows it begins a new line."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        write_text(path, text[: text.rfind("\n") + 1])
    found = []
    for line in text.split("\n"):  # a response may hold other line breaks
        try:
            found.append(_SAID.validate_json(line))
        except ValidationError:
            continue  # it is asked again
    return found
