"""YAML into a tree that knows where each key and value stands, and into nothing else: no tags, no aliases, no objects.

Built on PyYAML's event stream rather than on its constructor: nothing is ever executed, a bomb is refused at the event
that makes it one, and duplicate keys, which the constructor would swallow, are seen. A mistake that concerns one node
is noted and reading goes on, so that all of them come out at once; broken syntax ends it.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
    StreamEndEvent,
)

from dudi_kit.console import BIDI_CONTROLS
from dudi_kit.recipe.diagnostics import Finding, InvalidRecipeError, Path, Problem, dotted
from dudi_kit.recipe.scalars import Scalar, read_scalar

DEEPEST = 30
MOST_NODES = 10_000
LARGEST_FILE = 2**20

UNSEEN = BIDI_CONTROLS | frozenset("\u00ad\u200b\u2028\u2029\u2060\ufeff\n\r\t")
"""Characters that make two keys look the same. The joiners U+200C and U+200D are part of some scripts' words."""


class Syntax(NamedTuple):
    """What to tell about broken syntax."""

    message: str
    hint: str
    at_start: bool = False
    """Point to where the broken part begins, not to where it stopped making sense."""


SYNTAX = {
    "found character '\\t'": Syntax("tabs can't indent YAML", "use spaces"),
    "that cannot start any token": Syntax("a text can't begin with this character", "put the text in quotes"),
    "expected chomping or indentation": Syntax("a text can't begin with > or |", "put it in quotes"),
    "mapping values are not allowed": Syntax(
        "a second ': ' on this line, or a wrong indentation",
        "put the text in quotes, or align the key with its neighbours",
    ),
    "could not find expected ':'": Syntax("a key without a colon", "write 'key: value'", at_start=True),
    "expected <block end>": Syntax("the indentation fits no line above", "align it with its neighbours"),
    "unexpected end of stream": Syntax("a quote that is never closed", "close it", at_start=True),
    "expected ',' or": Syntax("a bracket that is not closed, or a comma that is missing", "one is open above"),
    "expected the node content": Syntax("a value is missing here", "write one"),
}
"""PyYAML's problem, by a part of its text."""


@dataclass(frozen=True)
class Source:
    """A text that values come from."""

    name: str
    """As messages show it."""

    folder: FilePath
    """What relative paths in it are relative to."""

    lines: tuple[str, ...]
    numbered: bool = True
    """False for the command line, which has no line numbers."""

    shift: int = 0
    """Characters that stand before the YAML text on its first line."""


class Place(NamedTuple):
    """A stretch of one line."""

    source: Source
    line: int
    column: int
    width: int

    def finding(self, problem: Problem) -> Finding:
        """The problem, put here."""
        lines = self.source.lines
        return Finding(
            file=self.source.name,
            line=self.line if self.source.numbered else 0,
            column=self.column,
            code=problem.code,
            path=dotted(problem.path),
            message=problem.message,
            source_line=lines[self.line - 1] if 0 < self.line <= len(lines) else "",
            width=self.width,
            hint=problem.hint,
            severity=problem.severity,
        )


@dataclass
class Node:
    """A value and its place; of a mapping or list, the nodes in it."""

    value: "Scalar | dict[str, Node] | list[Node]"
    place: Place
    key: Place | None = None
    """Where its key stands, if it is in a mapping."""

    flawed: bool = False
    """It was complained about already; what follows from that needs no finding of its own."""

    def child(self, part: str | int) -> "Node | None":
        """The node under a key or at a list's position."""
        if isinstance(self.value, dict):
            return self.value.get(str(part))
        if isinstance(self.value, list) and isinstance(part, int) and part < len(self.value):
            return self.value[part]
        return None

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def trail(self, path: Path) -> list["Node"]:
        """The nodes from this one down the path, as far as they exist."""
        nodes: list[Node] = [self]
        for part in path:
            below = nodes[-1].child(part)
            if below is None:
                break
            nodes.append(below)
        return nodes

    def at(self, path: Path) -> "Node | None":
        """The node at the path, if it is written."""
        nodes = self.trail(path)
        return nodes[-1] if len(nodes) > len(path) else None

    def locate(self, problem: Problem) -> Finding:
        """The problem, put at its path, or at the nearest key above it that is written."""
        nodes = self.trail(problem.path)
        node = nodes[-1]
        is_whole = isinstance(node.value, dict | list)
        points_at_key = problem.at_key or is_whole or len(nodes) <= len(problem.path)
        return (node.key if points_at_key and node.key else node.place).finding(problem)


@dataclass
class Reading:
    """A tree, and what is wrong with single nodes of it."""

    root: Node
    findings: list[Finding] = field(default_factory=list)


def lines_of(text: str) -> tuple[str, ...]:
    """Lines as PyYAML counts them."""
    return tuple(text.replace("\r\n", "\n").translate(str.maketrans("\r\x85\u2028\u2029", "\n\n\n\n")).split("\n"))


def read_yaml(text: str, source: Source) -> Reading:
    """The tree of one YAML document; raises InvalidRecipeError where the text can't be read to its end."""
    reader = _Reader(text, source)
    try:
        return Reading(reader.document(), reader.findings)
    except yaml.reader.ReaderError as error:
        raise InvalidRecipeError([*reader.findings, _unreadable(text, source, error)]) from None
    except yaml.MarkedYAMLError as error:
        raise InvalidRecipeError([*reader.findings, reader.syntax(error)]) from None


class _Reader:
    def __init__(self, text: str, source: Source) -> None:
        self.source = source
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self.findings: list[Finding] = []
        self.nodes = 0

    def document(self) -> Node:
        next(self.events)  # the stream's start
        event = next(self.events)
        if isinstance(event, StreamEndEvent):
            return Node(None, self.place(event))
        root = self.node(next(self.events), depth=1)
        next(self.events)  # the document's end
        event = next(self.events)
        if isinstance(event, DocumentStartEvent):
            self.stop(event, "documents", "a second YAML document", "a recipe is one document: remove '---'")
        return root

    def node(self, event: Any, depth: int) -> Node:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            self.stop(event, "too-large", f"more than {MOST_NODES:,} values", "a recipe needs a few hundred at most")
        if depth > DEEPEST:
            self.stop(event, "too-deep", f"more than {DEEPEST} levels", "a recipe needs about ten")
        place = self.place(event)
        if isinstance(event, AliasEvent):
            self.note(
                place, "alias", f"aliases are not read: *{event.anchor}", "write the value again, or use 'extends'"
            )
            return Node(None, place, flawed=True)
        node = self.content(event, place, depth)
        node.flawed |= self.is_decorated(event, place)
        return node

    def content(self, event: Any, place: Place, depth: int) -> Node:
        if isinstance(event, ScalarEvent):
            return self.scalar(event, place)
        if isinstance(event, MappingStartEvent):
            return self.mapping(place, depth)
        return Node([self.node(item, depth + 1) for item in self.items()], place)

    def items(self) -> Iterator[Any]:
        for event in self.events:
            if isinstance(event, CollectionEndEvent):
                return
            yield event

    def mapping(self, place: Place, depth: int) -> Node:
        found: dict[str, Node] = {}
        for event in self.items():
            key = self.key(event, depth)
            node = self.node(next(self.events), depth + 1)
            node.key = self.place(event)
            if key in found:
                first = found[key].key
                hint = f"first on line {first.line}" if first and self.source.numbered else ""
                self.note(node.key, "duplicate-key", f"the key {key!r} is here twice", hint)
            elif key is not None:
                found[key] = node
        return Node(found, place)

    def key(self, event: Any, depth: int) -> str | None:
        """A key is always a text, whatever it looks like; None after a complaint."""
        place = self.place(event)
        if isinstance(event, CollectionStartEvent):
            self.node(event, depth + 1)
            self.note(
                place, "bad-key", "a mapping or list can't be a key", "put a text that begins with { or [ in quotes"
            )
            return None
        if isinstance(event, AliasEvent):
            self.node(event, depth + 1)
            return None
        self.is_decorated(event, place)
        if event.value == "<<" and event.style is None:
            self.note(place, "merge-key", "merge keys (<<) are not read", "use 'extends', or write the keys out")
            return None
        if unseen := next((char for char in event.value if char in UNSEEN or _is_control(char)), None):
            message = f"the key holds a character that can't be seen, U+{ord(unseen):04X}"
            self.note(place, "bad-character", message, "type the key anew")
            return None
        return str(event.value)

    def scalar(self, event: ScalarEvent, place: Place) -> Node:
        text = event.value
        if control := next((char for char in text if _is_control(char)), None):
            message = f"a text can't hold the control character U+{ord(control):04X}"
            self.note(place, "bad-character", message, "remove it")
            return Node(None, place, flawed=True)
        if event.style is not None:
            return Node(text, place)
        try:
            return Node(read_scalar(text), place)
        except ValueError as error:
            self.note(place, "bad-number", str(error), "")
            return Node(None, place, flawed=True)

    def is_decorated(self, event: Any, place: Place) -> bool:
        """Complain about an anchor or a tag. Only a tag changes what the value would mean."""
        if event.anchor is not None:
            self.note(place, "anchor", f"anchors are not read: &{event.anchor}", "remove it; 'extends' shares values")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.note(place, "tag", f"tags are not read: {tag}", "remove it; what is in quotes is a text")
        return event.tag is not None

    def place(self, event: Any) -> Place:
        start, end = event.start_mark, event.end_mark
        line = self.source.lines[start.line] if start.line < len(self.source.lines) else ""
        shift = self.source.shift if start.line == 0 else 0
        if isinstance(event, CollectionStartEvent):
            width = 1
        elif end.line == start.line:
            width = end.column - start.column
        else:
            width = len(line) - start.column
        return Place(self.source, start.line + 1, start.column + 1 + shift, max(1, width))

    def note(self, place: Place, code: str, message: str, hint: str) -> None:
        self.findings.append(place.finding(Problem((), code, message, hint)))

    def stop(self, event: Any, code: str, message: str, hint: str) -> None:
        self.note(self.place(event), code, message, hint)
        raise InvalidRecipeError(self.findings)

    def syntax(self, error: yaml.MarkedYAMLError) -> Finding:
        problem = error.problem or "unreadable"
        told = next((told for part, told in SYNTAX.items() if part in problem), Syntax(f"not YAML: {problem}", ""))
        mark = (error.context_mark if told.at_start else error.problem_mark) or error.problem_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        shift = self.source.shift if line == 0 else 0
        place = Place(self.source, min(line, len(self.source.lines) - 1) + 1, column + 1 + shift, 1)
        return place.finding(Problem((), "yaml", told.message, told.hint))


def _is_control(char: str) -> bool:
    """No letter, sign or white space: it could only move the cursor of whoever looks at it."""
    return unicodedata.category(char) == "Cc" and char not in "\t\n\r"


def _unreadable(text: str, source: Source, error: yaml.reader.ReaderError) -> Finding:
    before = lines_of(text[: error.position])
    place = Place(source, len(before), len(before[-1]) + 1, 1)
    return place.finding(
        Problem((), "bad-character", f"the character U+{int(error.character):04X} can't stand in YAML", "remove it")
    )
