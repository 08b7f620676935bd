"""What a frozen teacher is asked for before training: texts, found again by the content of the request.

Planning and training look answers up and never ask: `Asked` remembers what was looked up in vain, and the pipeline,
which alone sees a model, has the teacher answer that. So plan and training make the same rows from the same answers.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dudi_kit.data.example import Turn

Purpose = Literal["response", "version"]


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt for the teacher."""

    turns: tuple[Turn, ...]
    max_new_tokens: int
    language: str
    """Of the row that it is for; for counting."""

    target: str
    """The language of the answer; for counting."""

    purpose: Purpose
    temperature: float = 0.0
    """0 is greedy."""

    seed: int = 0

    @property
    def key(self) -> str:
        """sha256 of all that the answer depends on, the teacher aside."""
        sampling = [self.temperature, self.seed] if self.temperature else []
        content = [self.turns, self.max_new_tokens, *sampling]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """All fields, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Request":
        """What `as_json` wrote."""
        return cls(**{**value, "turns": tuple(Turn(*turn) for turn in value["turns"])})


class Answer(NamedTuple):
    """What the teacher wrote."""

    text: str
    ended: bool
    """It stopped by itself; otherwise it was cut at the request's limit."""

    @property
    def fault(self) -> str | None:
        """Why it can't be used whatever it was for, in a few words."""
        if self.ended:
            return None if self.text.strip() else "empty"
        return "cut at max_new_tokens" if self.text else "not written, its prompt is longer than the teacher's context"


Ask = Callable[[Request], Answer | None]
"""Finds the answer to a request; None: it was not asked yet."""


def nobody(request: Request) -> Answer | None:
    """An `Ask` where there is no teacher."""
    return None


@dataclass
class Asked:
    """An `Ask` over the answers that there are; remembers which it was asked for."""

    answers: Mapping[str, Answer] = field(default_factory=dict)
    used: dict[str, Answer] = field(default_factory=dict)
    """key → answer that was found."""

    missing: dict[str, Request] = field(default_factory=dict)
    """key → request that has no answer yet."""

    _late: bool = False
    """A response is missing."""

    def __call__(self, request: Request) -> Answer | None:
        """The answer, or None."""
        if request.purpose == "version" and self._late:
            return None  # the response that would be translated may itself be yet to be written
        key = request.key
        if key in self.answers:
            self.used[key] = self.answers[key]
            return self.answers[key]
        self.missing[key] = request
        self._late |= request.purpose == "response"
        return None

    def lines(self) -> list[str]:
        """What is yet to be asked, for the plan's notices."""
        groups: dict[str, list[Request]] = {}
        for request in self.missing.values():
            groups.setdefault(_kind(request), []).append(request)
        return [_line(kind, requests, len(self.used)) for kind, requests in sorted(groups.items())]


def _kind(request: Request) -> str:
    return "responses" if request.purpose == "response" else f"versions in {request.target}"


def _line(kind: str, requests: list[Request], used: int) -> str:
    languages = Counter(request.language for request in requests)
    shown = ", ".join(f"{code} {n:,}" for code, n in sorted(languages.items()))
    most = max(request.max_new_tokens for request in requests)
    return (
        f"the teacher is asked before training for {len(requests):,} {kind} ({shown}), {used:,} answers are there; "
        f"until then lengths are counted without them: at most {most:,} tokens each, of the teacher's"
    )


# On disk: a line for each answer, only ever added to, so that a kill costs no more than the line being written


def answer_line(key: str, answer: Answer) -> str:
    """One answer as a line of a file."""
    return json.dumps({"key": key, **answer._asdict()}, ensure_ascii=False) + "\n"


def read_answers(files: Iterable[Path]) -> dict[str, Answer]:
    """The answers in some files, those that are there; the first file that knows an answer is believed.

    A line that a kill tore is no answer: it is asked again.
    """
    found: dict[str, Answer] = {}
    for file in files:
        if file.is_file():
            for line in file.read_bytes().split(b"\n"):
                if (read := _read(line)) is not None:
                    found.setdefault(*read)
    return found


def _read(line: bytes) -> tuple[str, Answer] | None:
    try:
        value = json.loads(line)
        return str(value["key"]), Answer(str(value["text"]), bool(value["ended"]))
    except (ValueError, KeyError, TypeError):
        return None
