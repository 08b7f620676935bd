"""Recipes with random mistakes, the same ones every time: some that people make, some that only a machine would."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from dudi_kit.recipe.explain import EXAMPLE

UNKNOWN = "zz_unknown"
VALUES = (
    *("", "null", "no", "-1", "0", "1e999", "1e308", "9" * 99, "[]", "{}", "[[a]]", "{a: {b: 1}}", "'", "&a", "*a"),
    *(
        "!!x y",
        "x" * 200,
        "{type: jsd}",
        "[1, 2, 3, 4]",
        '"\\0"',
        "'{language}'",
        "{recipe: recipe.yaml}",
        "../../x",
        ">",
    ),
)
SIGNS = "{}[]:,#&*!|>'\"%@`\t\\é\u200b\x85"


def recipe() -> str:
    """The recipe with everything."""
    return EXAMPLE.read_text(encoding="utf-8")


def lay_out(folder: Path) -> Path:
    """Where a mutant goes, with the small files beside it that the recipe names."""
    for file in EXAMPLE.parent.iterdir():
        if file != EXAMPLE:
            shutil.copy(file, folder)
    return folder / EXAMPLE.name


def texts(count: int, seed: int = 0) -> Iterator[str]:
    """Its lines changed, doubled, removed, moved, or given an unknown key for a neighbour."""
    draw, text = random.Random(seed), recipe()
    for _ in range(count):
        lines = text.split("\n")
        for _ in range(draw.choice([1, 1, 2, 4])):
            lines = _changed(lines, draw) or [""]
        yield "\n".join(lines)


def raw(count: int, seed: int = 0) -> Iterator[bytes]:
    """Its bytes overwritten, removed, doubled and cut."""
    draw, content = random.Random(seed), recipe().encode()
    for _ in range(count):
        mutant = bytearray(content)
        for _ in range(draw.choice([1, 2, 8])):
            start = draw.randrange(len(mutant))
            end = start + draw.choice([1, 1, 4, 100])
            new = (draw.randbytes(draw.choice([1, 4])), b"", bytes(mutant[start:end]) * 2, b"\xef\xbb\xbf", b"\r")
            mutant[start:end] = draw.choice(new)
        yield bytes(mutant)


def _changed(lines: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(lines))
    line = lines[at]
    key, colon, value = line.partition(": ")
    indent = " " * (len(line) - len(line.lstrip()))
    cut = draw.randrange(len(line) + 1)
    new = {
        "value": [key + colon + draw.choice(VALUES)],
        "misspelt": [key[:-1] + colon + value],
        "unknown": [line, f"{indent}{UNKNOWN}: {draw.choice(VALUES)}"],
        "gone": [],
        "twice": [line, line],
        "elsewhere": [" " * draw.randrange(8) + line.lstrip()],
        "sign": [line[:cut] + draw.choice(SIGNS) + line[cut:]],
    }
    return [*lines[:at], *new[draw.choice(list(new))], *lines[at + 1 :]]
