"""`migrate`: comments and layout stay, and each version's migration is applied in turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dudi_kit.recipe.diagnostics import InvalidRecipeError
from dudi_kit.recipe.migrate import Edit, migrate
from dudi_kit.recipe.yaml_nodes import Node

TEXT = """\
# yaml-language-server: $schema=x
# About this recipe.

name: x   # its name
training: {lr: 1e-4}  # fast
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def rename_lr(tree: Node) -> Iterator[Edit]:
    node = tree.at(("training", "lr"))
    if node and node.key:
        yield Edit(node.key, "learning_rate")


def double_rate(tree: Node) -> Iterator[Edit]:
    node = tree.at(("training", "learning_rate"))
    if node:
        yield Edit(node.place, "2e-4")


def test_a_recipe_that_says_its_version_is_left_alone(recipe: Path) -> None:
    recipe.write_text(f"version: 1\n{TEXT}", encoding="utf-8")
    result = migrate(recipe)
    assert (result.version, result.changed) == (1, False)


def test_a_missing_version_is_written_before_the_first_key(recipe: Path) -> None:
    recipe.write_text(TEXT, encoding="utf-8")
    result = migrate(recipe)
    assert result.version is None
    assert result.after == TEXT.replace("name: x", "version: 1\nname: x")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{name: x}", "{version: 1, name: x}"),
        ("{}", "{version: 1, }"),
        ("---\r\n# c\r\n  name: x\r\n  a: 1\r\n", "---\r\n# c\r\n  version: 1\r\n  name: x\r\n  a: 1\r\n"),
    ],
)
def test_every_layout_of_a_recipe(recipe: Path, before: str, after: str) -> None:
    recipe.write_text(before, encoding="utf-8", newline="")
    assert migrate(recipe).after == after


def test_migrations_follow_one_another_and_comments_stay(recipe: Path) -> None:
    recipe.write_text(TEXT, encoding="utf-8")
    result = migrate(recipe, {1: rename_lr, 2: double_rate}, target=3)
    wanted = TEXT.replace("lr: 1e-4", "learning_rate: 2e-4").replace("name: x", "version: 3\nname: x")
    assert result.after == wanted
    recipe.write_text(f"version: 2  # old\n{result.after.replace('version: 3', 'description: d')}", encoding="utf-8")
    again = migrate(recipe, {1: rename_lr, 2: double_rate}, target=3)
    assert again.version == 2
    assert again.after.startswith("version: 3  # old\n")


@pytest.mark.parametrize("version", ["2", "0", "x", "1.0"])
def test_versions_that_it_does_not_know_are_refused(recipe: Path, version: str) -> None:
    recipe.write_text(f"version: {version}\n{TEXT}", encoding="utf-8")
    with pytest.raises(InvalidRecipeError, match=r"recipe\.yaml:1:10: error\[version\]"):
        migrate(recipe)


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "a: 1\na: 2\n"])
def test_what_can_not_be_read_is_not_rewritten(recipe: Path, text: str) -> None:
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRecipeError):
        migrate(recipe)
