"""Recipes that name others: their mistakes come out in the same go, each once, and circles are seen."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dudi_kit.recipe.diagnostics import InvalidRecipeError
from dudi_kit.recipe.nested import load_whole, look

REST = "student: {model: ./s}\ndata: {train: {a: {builtin: train}}}\n"
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write recipes by name, each with a teacher that is the recipe named, in the folder where we are."""

    def write_files(**teachers: str) -> None:
        for name, teacher in teachers.items():
            Path(f"{name}.yaml").write_text(f"name: {name}\nteacher: {teacher}\n{REST}", encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    return write_files


def seen(*files: str, overrides: tuple[tuple[str, str], ...] = ()) -> list[tuple[str, list[str]]]:
    """(file, its findings as `line code path`) of each file looked at."""
    return [
        (str(each.file), [f"{f.line} {f.code} {f.path}" for f in each.findings])
        for each in look([Path(file) for file in files], overrides)
    ]


def test_mistakes_of_a_recipe_that_is_named_are_found_at_their_own_place(write: Write) -> None:
    write(a="{recipe: b.yaml, dytpe: fp32}", b="{model: ./t}\ntraining: {sede: 1}")
    assert seen("a.yaml") == [("a.yaml", ["2 unknown-key teacher.dytpe"]), ("b.yaml", ["3 unknown-key training.sede"])]


def test_each_file_is_looked_at_once_whoever_names_it(write: Write) -> None:
    write(a="{recipe: c.yaml}", b="{recipe: c.yaml}", c="{model: ./t}")
    assert [file for file, _ in seen("c.yaml", "a.yaml", "b.yaml")] == ["c.yaml", "a.yaml", "b.yaml"]
    assert [file for file, _ in seen("a.yaml", "b.yaml", "c.yaml")] == ["a.yaml", "c.yaml", "b.yaml"]


def test_a_student_may_be_a_recipe_too(write: Write) -> None:
    write(b="{model: ./t}\ntraining: {sede: 1}")
    text = "name: a\nteacher: {model: ./t}\nstudent: {init: recipe, recipe: b.yaml}\ndata: {train: {a: {builtin: dev}}}"
    Path("a.yaml").write_text(text, encoding="utf-8")
    assert seen("a.yaml") == [("a.yaml", []), ("b.yaml", ["3 unknown-key training.sede"])]


def test_circles_are_errors_with_the_chain(write: Write) -> None:
    write(a="{recipe: b.yaml}", b="{recipe: c.yaml}", c="{recipe: b.yaml}")
    assert seen("a.yaml") == [("a.yaml", []), ("b.yaml", []), ("c.yaml", ["2 recipe-cycle teacher.recipe"])]
    with pytest.raises(InvalidRecipeError, match=r"the chain is a\.yaml → b\.yaml → c\.yaml → b\.yaml"):
        load_whole("a.yaml")
    write(a="{recipe: a.yaml}")
    assert seen("a.yaml") == [("a.yaml", ["2 recipe-cycle teacher.recipe"])]


def test_long_chains_are_refused(write: Write) -> None:
    write(**{f"r{n}": f"{{recipe: r{n + 1}.yaml}}" for n in range(30)})
    *_, (last, findings) = seen("r0.yaml")
    assert (last, findings) == ("r9.yaml", ["2 too-deep teacher.recipe"])


def test_a_missing_recipe_is_told_by_who_names_it(write: Write) -> None:
    write(a="{recipe: nowhere.yaml}")
    assert seen("a.yaml") == [("a.yaml", ["2 missing-file teacher.recipe"])]


def test_overrides_are_for_the_recipe_given_alone(write: Write) -> None:
    write(a="{recipe: b.yaml}", b="{recipe: nowhere.yaml}")
    found = dict(seen("a.yaml", overrides=(("training.sede", "1"),)))
    assert found == {"a.yaml": ["0 unknown-key training.sede"], "b.yaml": ["2 missing-file teacher.recipe"]}


def test_a_run_is_refused_for_a_mistake_in_its_teachers_recipe(write: Write) -> None:
    write(a="{recipe: b.yaml}", b="{model: owner/unpinned}")
    assert load_whole("a.yaml").recipe.name == "a"
    write(b="{model: ./t}\ntraining: {sede: 1}")
    with pytest.raises(InvalidRecipeError, match=r"b\.yaml:3:12: error\[unknown-key\]"):
        load_whole("a.yaml")
