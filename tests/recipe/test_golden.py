"""Broken recipes and the exact text that they are answered with. `UPDATE_GOLDEN=1 pytest` writes the answers anew.

A case is `=== title`, the recipe, then what `dudi-kit validate` prints, each line behind `> `.
"""

import os
import shutil
from pathlib import Path

import pytest

from dudi_kit import __version__
from dudi_kit.recipe.diagnostics import render
from dudi_kit.recipe.load import check_recipe

GOLDEN = Path(__file__).parent / "golden"
ANSWER = "> "


def read_cases(file: Path) -> list[tuple[str, str, str]]:
    """(title, recipe, answer) of each case."""
    cases = []
    for case in file.read_text(encoding="utf-8").removeprefix("=== ").split("\n=== "):
        title, *lines = case.split("\n")
        recipe = [line for line in lines if not line.startswith(ANSWER)]
        answer = [line.removeprefix(ANSWER) for line in lines if line.startswith(ANSWER)]
        cases.append((title, "\n".join(recipe).rstrip("\n") + "\n", "\n".join(answer)))
    return cases


def write_cases(file: Path, cases: list[tuple[str, str, str]]) -> None:
    text = "".join(
        f"=== {title}\n{recipe.lstrip() if not recipe.strip() else recipe}"
        + "".join(f"{ANSWER}{line}\n" for line in answer.split("\n"))
        for title, recipe, answer in cases
    )
    file.write_text(text, encoding="utf-8")


FILES = sorted(GOLDEN.glob("*.txt"))
CASES = [(file, title, recipe, answer) for file in FILES for title, recipe, answer in read_cases(file)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the parents that cases extend; messages name files relative to it."""
    for parent in GOLDEN.glob("*.yaml"):
        shutil.copy(parent, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer_to(recipe: str, folder: Path) -> str:
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    answer = render(check_recipe("recipe.yaml").findings)
    return answer.replace(str(folder), "<folder>").replace(f"this is {__version__}", "this is <version>")


@pytest.mark.parametrize(("file", "title", "recipe", "answer"), CASES, ids=[f"{c[0].stem}: {c[1]}" for c in CASES])
def test_broken_recipe_gets_this_answer(file: Path, title: str, recipe: str, answer: str, folder: Path) -> None:
    found = answer_to(recipe, folder)
    if os.environ.get("UPDATE_GOLDEN"):
        write_cases(file, [(t, r, found if t == title else a) for t, r, a in read_cases(file)])
    else:
        assert found == answer
        assert found, "a case of this suite has something to complain about"


def test_no_answer_speaks_pydantic() -> None:
    everything = "".join(answer for *_, answer in CASES)
    for phrase in ("Input should", "Extra inputs", "Field required", "tag()", "[type=", "valid string"):
        assert phrase not in everything


def test_titles_are_unique_and_there_are_enough() -> None:
    assert len({(file, title) for file, title, *_ in CASES}) == len(CASES) >= 60
