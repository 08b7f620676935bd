"""The inline cold start as a recipe of its own."""

import pytest

from dudi_kit.recipe.derive import cold_start_recipe
from dudi_kit.recipe.publish import recipe_from_resolved, resolved_json
from dudi_kit.recipe.schema import Recipe
from tests.recipe.conftest import Load

TEXT = """\
extends: minimal.yaml
description: ours
student: {model: ./s, cold_start: {steps: 7, learning_rate: 1e-3}}
training: {epochs: 3, learning_rate: 1e-5, schedule: linear, batch_size: 4}
rollouts: {temperature: 0.5}
signals: {on_policy: {weight: 0.9}, dft: {weight: 1}}
evaluation: {tasks: {t: {data: {builtin: test}}}}
data: {held_out: {dev: {builtin: dev}}}
"""


def weights(recipe: Recipe) -> dict[str, float]:
    return {name: getattr(recipe.signals, name).weight for name in type(recipe.signals).model_fields}


def test_it_is_plain_sft_on_the_same_data(load: Load) -> None:
    recipe = load(TEXT).recipe
    cold = cold_start_recipe(recipe)
    assert cold.name == "small.cold-start"
    assert weights(cold) == {"sequence": 0, "off_policy": 0, "on_policy": 0, "sft": 1, "dft": 0}
    assert cold.student.cold_start is None
    assert cold.teacher is None
    assert (cold.evaluation.tasks, cold.evaluation.models) == ({}, [])
    assert cold.data == recipe.data


def test_it_has_its_own_length_and_rate_and_the_rest_of_training(load: Load) -> None:
    cold = cold_start_recipe(load(TEXT).recipe).training
    assert (cold.steps, cold.epochs, cold.learning_rate, cold.schedule, cold.batch_size) == (7, None, 1e-3, "linear", 4)


def test_without_a_length_it_is_one_epoch_not_that_of_training(load: Load) -> None:
    cold = cold_start_recipe(load("extends: minimal.yaml\nstudent: {cold_start: {}}\ntraining: {steps: 9}").recipe)
    assert (cold.training.steps, cold.training.epochs) == (None, None)


def test_the_teacher_stays_where_the_tokenizer_comes_from_it(load: Load) -> None:
    text = "extends: minimal.yaml\nstudent: {init: scratch, cold_start: {}, tokenizer: {from: teacher}}"
    assert cold_start_recipe(load(text).recipe).teacher is not None


def test_what_it_does_not_use_does_not_change_it(load: Load) -> None:
    other = (
        TEXT.replace("temperature: 0.5", "temperature: 0.9").replace("weight: 0.9", "weight: 0.1").replace("ours", "x")
    )
    assert cold_start_recipe(load(TEXT).recipe) == cold_start_recipe(load(other).recipe)


def test_demonstrations_in_front_of_rows_are_kept(load: Load) -> None:
    text = f"{TEXT}verbalizer: {{demonstration: {{source: pool}}}}"
    assert cold_start_recipe(load(text).recipe).verbalizer.demonstration.source == "parallel"
    shown = with_train(load(text).recipe, demonstrate=True)
    assert cold_start_recipe(shown).verbalizer.demonstration.source == "pool"


def test_the_teacher_is_kept_where_it_writes_the_responses(load: Load) -> None:
    recipe = load(TEXT).recipe
    assert cold_start_recipe(recipe).teacher is None
    assert cold_start_recipe(with_train(recipe, responses="teacher")).teacher == recipe.teacher


def with_train(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with changes in every training set."""
    train = {name: dataset.model_copy(update=changes) for name, dataset in recipe.data.train.items()}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": train})})


def test_it_is_a_valid_recipe_itself(load: Load) -> None:
    cold = cold_start_recipe(load(TEXT).recipe)
    assert recipe_from_resolved(resolved_json(cold)) == cold


def test_a_recipe_without_a_cold_start_has_none(load: Load) -> None:
    with pytest.raises(ValueError, match=r"no student\.cold_start"):
        cold_start_recipe(load("extends: minimal.yaml").recipe)
