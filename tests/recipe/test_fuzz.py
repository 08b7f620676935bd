"""Thousands of broken recipes: each is answered, none crashes, and no unknown key gets through."""

import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

from dudi_kit.recipe.anatomy import Branch, branches, keys
from dudi_kit.recipe.diagnostics import errors
from dudi_kit.recipe.load import Checked, check_recipe
from dudi_kit.recipe.schema import Recipe
from tests.recipe import mutants

MOST_MEMORY = 100_000
"""KiB by which the process may grow."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return mutants.lay_out(tmp_path)


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


def unknown_keys(value: Any, here: Iterable[Branch]) -> Iterator[str]:
    """Keys of the values that no mapping of the schema has; told by walking it, not by asking Pydantic."""
    if isinstance(value, dict):
        models = [keys(branch.model) for branch in here if branch.model]
        names = [branches(get_args(branch.type)[1]) for branch in here if get_origin(branch.type) is dict]
        for key, below in value.items():
            next_here = [branch for fields in models if key in fields for branch in branches(fields[key].annotation)]
            next_here += [branch for name in names for branch in name]
            yield from unknown_keys(below, next_here) if next_here else [key]


def assert_answered(checked: Checked) -> None:
    assert (checked.loaded is None) == bool(errors(checked.findings))
    for finding in checked.findings:
        assert finding.message
        assert "not allowed here" not in finding.message, "a kind of error that `sentences` does not know"
        assert "\x1b" not in finding.render()
    if checked.loaded:
        assert list(unknown_keys(checked.loaded.values, [Branch(None, Recipe)])) == []


def test_two_thousand_mutants_are_answered(path: Path, bounded_memory: None) -> None:
    accepted = 0
    for text in mutants.texts(2000):
        path.write_text(text, encoding="utf-8")
        checked = check_recipe(path)
        assert_answered(checked)
        accepted += checked.loaded is not None
    assert 100 < accepted < 1000, "some must be right, most wrong, or this test sees nothing"


def test_mutants_of_the_raw_bytes_are_answered(path: Path, bounded_memory: None) -> None:
    for content in mutants.raw(500):
        path.write_bytes(content)
        assert_answered(check_recipe(path))


def test_an_unknown_key_would_be_noticed() -> None:
    values = {"name": "x", "data": {"train": {"zz": {"builtin": "train", "zz": 1}}}, "student": {"zz": {}}}
    assert list(unknown_keys(values, [Branch(None, Recipe)])) == ["zz", "zz"]
