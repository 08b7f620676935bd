"""The requests of the task `instructions`: a topic and one constraint that can be checked, in every language.

They are put together from the pieces in `requests.yaml`, so that a phrase is corrected in one place.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

NUMBERS: dict[str, tuple[int, ...]] = {
    "bullets": (3, 4, 5),
    "numbered": (3, 5, 4),
    "paragraphs": (2, 3, 2),
    "sentences": (2, 3, 4),
    "at_most_words": (20, 30, 15),
    "at_least_words": (30, 40, 50),
}
"""Constraint → its number in each round."""

ROUNDS = 3
"""Requests for each constraint."""


@dataclass(frozen=True)
class Request:
    """What is asked, and how the answer is checked."""

    id: str
    prompt: str
    checks: tuple[dict[str, Any], ...]
    """As `instructions.followed` takes them."""


@cache
def requests(language: str) -> tuple[Request, ...]:
    """All requests in a language: each constraint three times, with other topics and numbers."""
    pieces = _pieces()[language]
    kinds = list(pieces["constraints"])
    return tuple(
        _request(pieces, kind, turn, (place + 2 * turn) % len(pieces["topics"]))
        for turn in range(ROUNDS)
        for place, kind in enumerate(kinds)
    )


@cache
def _pieces() -> dict[str, Any]:
    text = (resources.files("dudi_kit.evaluate") / "requests.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _request(pieces: dict[str, Any], kind: str, turn: int, topic: int) -> Request:
    first, second = pieces["keys"]
    values = {
        "n": NUMBERS[kind][turn] if kind in NUMBERS else 0,
        "word": pieces["words"][topic],
        "first": first,
        "second": second,
        "beginning": pieces["beginning"],
        "ending": pieces["ending"],
    }
    asked = pieces["ask"].format(topic=pieces["topics"][topic])
    told = pieces["constraints"][kind].format(**values)
    return Request(f"{kind}-{turn + 1}", f"{asked} {told}", ({"kind": kind, **_settings(kind, values)},))


def _settings(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    match kind:
        case "contains" | "avoids":
            return {"word": values["word"]}
        case "starts_with":
            return {"text": values["beginning"]}
        case "ends_with":
            return {"text": values["ending"]}
        case "json":
            return {"keys": [values["first"], values["second"]]}
        case _:
            return {"n": values["n"]}
