"""Values as YAML lines that `yaml_nodes` reads back as the same values, for `show`."""

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import yaml

from dudi_kit.console import BIDI_CONTROLS
from dudi_kit.recipe.diagnostics import InvalidRecipeError, Path, cells
from dudi_kit.recipe.yaml_nodes import Source, read_yaml

LONGEST_LIST = 90
"""Cells of a list on one line; a longer one gets a line for each item."""

IN_BRACKETS = "[{}]"
"""Where fewer texts can do without quotes than elsewhere; keys are judged so too."""

BESIDE_A_KEY = "x: {}"
NOWHERE = Source("", FilePath(), ("",))


class Line(NamedTuple):
    """A line, and the path of the value that begins there."""

    path: Path
    text: str
    is_leaf: bool
    """The value stands on this line; else it is a mapping, or a long list, on the lines below."""


def yaml_lines(values: Mapping[str, Any], above: Path = ()) -> Iterator[Line]:
    """Block mappings, two spaces a level."""
    indent = "  " * len(above)
    for key, value in values.items():
        path, head = (*above, key), f"{indent}{_text(key)}:"
        if isinstance(value, dict) and value:
            yield Line(path, head, is_leaf=False)
            yield from yaml_lines(value, path)
        elif isinstance(value, list) and cells(inline(value)) > LONGEST_LIST:
            yield Line(path, head, is_leaf=True)
            yield from (Line(path, f"{indent}- {inline(item, IN_BRACKETS)}", is_leaf=False) for item in value)
        else:
            yield Line(path, f"{head} {inline(value)}", is_leaf=True)


def inline(value: Any, where: str = BESIDE_A_KEY) -> str:
    """The value on one line."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case dict():
            return "{" + ", ".join(f"{_text(key)}: {inline(below, IN_BRACKETS)}" for key, below in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(inline(item, IN_BRACKETS) for item in value) + "]"
        case _:
            return _text(str(value), where)


def _text(text: str, where: str = IN_BRACKETS) -> str:
    """Plain where that reads as this very text, in quotes where not."""
    if _reads_plain(text, where):
        return text
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf")).rstrip("\n")
    return "".join(f"\\u{ord(char):04x}" if char in BIDI_CONTROLS else char for char in quoted)


def _reads_plain(text: str, where: str) -> bool:
    if not text.isprintable():  # line breaks, tabs, what turns the reading direction
        return False
    try:
        reading = read_yaml(where.format(text), NOWHERE)
    except InvalidRecipeError:
        return False
    return not reading.findings and reading.root.plain() in ([text], {"x": text})
