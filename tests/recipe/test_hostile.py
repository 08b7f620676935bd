"""A recipe is untrusted input: what is too large, too deep or too clever is refused at once, with a message."""

import os
import time
from pathlib import Path

import pytest

from dudi_kit.recipe.diagnostics import InvalidRecipeError, errors
from dudi_kit.recipe.load import check_recipe, load_recipe
from tests.recipe.conftest import MINIMAL

BOMBS = {
    "deep flow": "[" * 100_000,
    "deep mapping": "{a: " * 50_000,
    "deep block": "\n".join(" " * n + "a:" for n in range(1000)),
    "many values": "a: [" + "1, " * 300_000 + "1]",
    "many keys": "\n".join(f"k{n}: 1" for n in range(60_000)),
    "billion laughs": "a: &a [x, x]\n"
    + "\n".join(f"{c}: &{c} [*{p}, *{p}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
    "aliases": "a: &a 1\nb: [" + "*a, " * 200_000 + "1]",
    "one long number": "a: " + "1" * 1_000_000,
    "large file": "# " + "x" * 2**20,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_bombs_are_refused_quickly(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb, encoding="utf-8")
    began = time.perf_counter()
    findings = check_recipe(path).findings
    assert errors(findings)
    assert time.perf_counter() - began < 15, "a generous bound: it takes under two seconds on an idle machine"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"name: \xff\xfe", "encoding"),
        ("name: x".encode("utf-16"), "encoding"),
        (b"name: \x1b[31mred", "bad-character"),
        (b"\x00", "bad-character"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "bytes.yaml"
    path.write_bytes(content)
    assert [finding.code for finding in check_recipe(path).findings] == [code]


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.yaml", tmp_path, Path("/dev/zero"), Path("a\0b.yaml"), tmp_path / ("x" * 5000)):
        assert [finding.code for finding in check_recipe(path).findings] == ["missing-file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InvalidRecipeError, match="a device or a pipe, no file"):
        load_recipe(tmp_path / "pipe.yaml")


def test_nothing_in_a_recipe_is_executed(tmp_path: Path) -> None:
    path, mark = tmp_path / "recipe.yaml", tmp_path / "executed"
    path.write_text(f'{MINIMAL}description: !!python/object/apply:os.system ["touch {mark}"]\n', encoding="utf-8")
    assert [finding.code for finding in check_recipe(path).findings] == ["tag"]
    assert not mark.exists()


def test_messages_can_not_write_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f'{MINIMAL}"\\e[31m\\u202e": "\\e[2J"\ntraining: {{schedule: "\\e[2J"}}\n', encoding="utf-8")
    text = "".join(finding.render() for finding in check_recipe(path).findings)
    assert "\x1b" not in text
    assert "\u202e" not in text
