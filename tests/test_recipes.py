from pathlib import Path

import pytest

from dudi_kit.recipe.load import check_recipe

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def test_there_are_recipes():
    assert ROOT / "recipes/quickstart.yaml" in RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_recipe_is_valid_without_a_warning(path):
    assert [str(finding) for finding in check_recipe(path).findings] == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_recipe_tells_editors_its_schema(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).resolve() == ROOT / "schemas/recipe.v1.schema.json"


def test_the_readmes_recipe_is_valid_without_a_warning(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    recipe = tmp_path / "readme.yaml"
    recipe.write_text(readme.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    assert [str(finding) for finding in check_recipe(recipe).findings] == []


def test_a_teacher_a_student_and_one_dataset_are_enough(tmp_path):
    recipe = tmp_path / "smallest.yaml"
    recipe.write_text(
        "name: smallest\nteacher: {model: ./teacher}\nstudent: {model: ./student}\n"
        "data: {train: {mine: {path: rows.jsonl, language: th}}}\n",
        encoding="utf-8",
    )
    assert [str(finding) for finding in check_recipe(recipe).findings] == []
