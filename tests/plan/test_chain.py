"""Which runs a recipe needs, in which order, and where they lie."""

from pathlib import Path

import pytest

from dudi_kit.errors import RecipeError
from dudi_kit.plan.chain import Stage, build_chain
from dudi_kit.recipe.load import load_recipe
from tests.small import ROWS, STUDENT, TEACHER, changed, write_chain, write_recipe, write_rows


def chain(file: Path) -> Stage:
    return build_chain(load_recipe(file).recipe, file, file.parent / "out")


def names(file: Path) -> list[str]:
    return [stage.recipe.name for stage in chain(file).in_order()]


def test_teacher_then_cold_start_then_the_recipe_itself(tmp_path: Path) -> None:
    file = write_chain(tmp_path)
    assert names(file) == ["teacher", "student.cold-start", "student"]
    stage = chain(file)
    assert stage.teacher is not None
    assert stage.start is not None
    assert stage.depends_on["dependencies"] == {"teacher": stage.teacher.lock, "start": stage.start.lock}


def test_a_recipe_that_needs_nothing_is_a_chain_of_one(tmp_path: Path) -> None:
    write_chain(tmp_path)
    assert names(tmp_path / "teacher.yaml") == ["teacher"]


def test_what_two_stages_need_is_built_once(tmp_path: Path) -> None:
    """The cold start takes its tokenizer from the teacher, so both it and the student need the teacher."""
    stage = chain(write_chain(tmp_path))
    assert stage.start is not None
    assert stage.start.teacher is not None
    assert stage.start.teacher.lock == stage.teacher.lock  # type: ignore[union-attr]
    locks = [needed.lock for needed in stage.in_order()]
    assert len(locks) == len(set(locks)) == 3


def test_a_cold_start_with_a_tokenizer_of_its_own_needs_no_teacher(tmp_path: Path) -> None:
    stage = chain(write_chain(tmp_path, student__tokenizer={"vocabulary_size": 400}))
    assert stage.start is not None
    assert stage.start.teacher is None


def test_a_student_that_another_recipe_trains_comes_first(tmp_path: Path) -> None:
    write_chain(tmp_path)
    write_recipe(tmp_path / "first.yaml", changed(TEACHER, name="first", training__seed=1))
    second = changed(STUDENT, name="second", student={"init": "recipe", "recipe": "first.yaml"})
    assert names(write_recipe(tmp_path / "second.yaml", second)) == ["teacher", "first", "second"]


def test_two_recipes_that_differ_in_name_alone_are_both_built_since_each_has_its_folder(tmp_path: Path) -> None:
    write_chain(tmp_path)
    write_recipe(tmp_path / "first.yaml", changed(TEACHER, name="first"))
    second = changed(STUDENT, name="second", student={"init": "recipe", "recipe": "first.yaml"})
    stage = chain(write_recipe(tmp_path / "second.yaml", second))
    assert [needed.recipe.name for needed in stage.in_order()] == ["teacher", "first", "second"]
    assert stage.teacher.lock == stage.start.lock  # type: ignore[union-attr]


def test_a_teacher_that_the_student_also_starts_from_is_built_once(tmp_path: Path) -> None:
    write_chain(tmp_path)
    second = changed(STUDENT, name="second", student={"init": "recipe", "recipe": "teacher.yaml"})
    assert names(write_recipe(tmp_path / "second.yaml", second)) == ["teacher", "second"]


def test_dependencies_lie_in_folders_with_their_hash_and_the_recipe_under_its_name(tmp_path: Path) -> None:
    stage = chain(write_chain(tmp_path))
    folders = {needed.recipe.name: needed.run.path for needed in stage.in_order()}
    assert folders["student"] == tmp_path / "out" / "student"
    for needed in (stage.teacher, stage.start):
        assert needed is not None
        assert folders[needed.recipe.name] == tmp_path / "out" / f"{needed.recipe.name}-{needed.lock[:8]}"


def test_an_edited_file_gives_the_teacher_and_all_that_need_it_another_folder(tmp_path: Path) -> None:
    file = write_chain(tmp_path)
    write_recipe(tmp_path / "teacher.yaml", changed(TEACHER, data__train__rows__path="other.jsonl"))
    write_rows(tmp_path / "other.jsonl", ROWS)
    before = [stage.lock for stage in chain(file).in_order()]
    write_rows(tmp_path / "other.jsonl", ROWS[:-1])
    after = [stage.lock for stage in chain(file).in_order()]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_a_change_of_the_objective_keeps_teacher_and_cold_start(tmp_path: Path) -> None:
    file = write_chain(tmp_path)
    before = [stage.lock for stage in chain(file).in_order()]
    write_recipe(file, changed(STUDENT, signals={"off_policy": {"weight": 0.1}}))
    after = [stage.lock for stage in chain(file).in_order()]
    assert after[:2] == before[:2]
    assert after[2] != before[2]


def test_recipes_that_need_each_other_are_named_in_their_circle(tmp_path: Path) -> None:
    file = write_chain(tmp_path)
    back = changed(STUDENT, name="teacher", teacher={"recipe": "student.yaml"}, student__cold_start=None)
    write_recipe(tmp_path / "teacher.yaml", back)
    with pytest.raises(RecipeError, match=r"in a circle: student\.yaml → teacher\.yaml → student\.yaml") as caught:
        chain(file)
    assert "A teacher or a start must end in a model" in str(caught.value)


def test_a_recipe_that_is_its_own_teacher_is_a_circle(tmp_path: Path) -> None:
    file = write_chain(tmp_path, teacher={"recipe": "student.yaml"})
    with pytest.raises(RecipeError, match=r"in a circle: student\.yaml → student\.yaml"):
        chain(file)


def test_a_mistake_in_the_teachers_recipe_is_told_with_its_own_file(tmp_path: Path) -> None:
    file = write_chain(tmp_path)
    write_recipe(tmp_path / "teacher.yaml", changed(TEACHER, training__sede=1))
    with pytest.raises(RecipeError, match=r"teacher\.yaml:\d+:\d+: error\[unknown-key\] training\.sede"):
        chain(file)
