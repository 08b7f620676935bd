"""A recipe of an older version of the language, rewritten in this one; comments and layout stay.

A migration looks at the tree of a text and says which stretches of it to replace. There is one for each version that
was left behind. Version 1 is the first, so there are none yet; what is done today is to write down the version.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path as FilePath
from typing import NamedTuple

from dudi_kit.recipe.compose import read_file
from dudi_kit.recipe.diagnostics import InvalidRecipeError, Problem, shown
from dudi_kit.recipe.gate import LANGUAGE_VERSION
from dudi_kit.recipe.yaml_nodes import Node, Place, Source, lines_of, read_yaml


class Edit(NamedTuple):
    """A stretch of the text and what stands there instead."""

    place: Place
    text: str


Migration = Callable[[Node], Iterable[Edit]]
"""From one version to the next; the version itself is rewritten for it."""

MIGRATIONS: Mapping[int, Migration] = {}
"""By the version that they begin with."""


class Migrated(NamedTuple):
    """A text in the language of today."""

    before: str
    after: str
    version: int | None
    """That the text had; None where it did not say."""

    @property
    def changed(self) -> bool:
        """Whether there is something to write."""
        return self.before != self.after


def migrate(
    path: FilePath, migrations: Mapping[int, Migration] = MIGRATIONS, target: int = LANGUAGE_VERSION
) -> Migrated:
    """The text of a recipe file in version `target`. Raises InvalidRecipeError where it can't be read or is newer."""
    before = text = read_file(path)
    found = _version(_read(text, path), target)
    for version in range(found or 1, target):
        tree = _read(text, path)
        text = _edited(text, [*migrations[version](tree), _stamp(tree, version + 1)])
    if _read(text, path).child("version") is None:
        text = _edited(text, [_stamp(_read(text, path), target)])
    written = _version(_read(text, path), target)
    assert written == target, f"a migration left {path} in version {written}"
    return Migrated(before, text, found)


def _read(text: str, path: FilePath) -> Node:
    source = Source(str(path), path.parent, lines_of(text))
    reading = read_yaml(text, source)
    if reading.findings:
        raise InvalidRecipeError(reading.findings)
    if not isinstance(reading.root.value, dict):
        raise InvalidRecipeError([reading.root.place.finding(Problem((), "not-a-recipe", "a recipe is a mapping"))])
    return reading.root


def _version(root: Node, newest: int) -> int | None:
    node = root.child("version")
    if node is None:
        return None
    if type(node.value) is int and 1 <= node.value <= newest:
        return node.value
    message = f"this dudi-kit knows versions up to {newest}, got {shown(node.plain())}"
    raise InvalidRecipeError([node.place.finding(Problem(("version",), "version", message, "a newer one may read it"))])


def _stamp(root: Node, version: int) -> Edit:
    """The version, in its place or as the first key."""
    node = root.child("version")
    if node is not None:
        return Edit(node.place, str(version))
    start = root.place._replace(width=0)
    if root.place.source.lines[start.line - 1][start.column - 1 :].startswith("{"):
        return Edit(start._replace(column=start.column + 1), f"version: {version}, ")
    return Edit(start, f"version: {version}\n{' ' * (start.column - 1)}")


def _edited(text: str, edits: Iterable[Edit]) -> str:
    """The text with the edits, the last one first so that the places of the others still hold."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    for place, new in sorted(edits, key=lambda edit: (edit.place.line, edit.place.column), reverse=True):
        line, start = lines[place.line - 1], place.column - 1
        lines[place.line - 1] = line[:start] + new.replace("\n", newline) + line[start + place.width :]
    return "".join(lines)
