"""Who scores a student while it trains: made where the recipe asks, and its rooms are loaded only then."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError
from dudi_kit.pipeline.benchmarks import evaluation_data
from dudi_kit.pipeline.during import drawn_from, drawn_rows, make_scorer
from dudi_kit.recipe.load import load_recipe
from dudi_kit.recipe.schema import Recipe
from tests.small import ROWS, STUDENT, changed, write_recipe, write_rows

ROOT = Path(__file__).parents[2]
NOTHING: Any = None


def recipe(folder: Path, **evaluation: Any) -> Recipe:
    write_rows(folder / "rows.jsonl", ROWS)
    rows = {"path": "rows.jsonl", "language": {"column": "language"}}
    held_out = {"rows": rows}
    made = changed(
        STUDENT, teacher={"model": "./t"}, student={"model": "./s"}, data__held_out=held_out, evaluation=evaluation
    )
    return load_recipe(write_recipe(folder / "recipe.yaml", made)).recipe


def asks(folder: Path, **during: Any) -> Recipe:
    rows = {"path": "rows.jsonl", "language": {"column": "language"}}
    tasks = {name: {"data": rows, "metrics": ["chrf"]} for name in ("a", "b")}
    return recipe(folder, tasks=tasks, during_training={"every": 5, **during})


def test_a_recipe_that_does_not_ask_gets_no_scorer(tmp_path: Path) -> None:
    assert make_scorer(NOTHING, recipe(tmp_path), NOTHING, NOTHING) is None


def test_only_the_tasks_that_it_names_are_read(tmp_path: Path) -> None:
    drawn = drawn_rows(asks(tmp_path, tasks=["b"], limit=1))
    assert list(drawn.tasks) == ["b"]
    languages = [row.language for row in drawn.held_out]
    assert languages == sorted(set(languages))
    assert list(drawn_rows(asks(tmp_path, tasks=[])).tasks) == []


def test_rows_that_were_read_for_the_whole_evaluation_give_the_same_draw(tmp_path: Path) -> None:
    made = asks(tmp_path, tasks=["b"], limit=1)
    assert drawn_from(made, evaluation_data(made, Ledger())).identity == drawn_rows(made).identity


def test_too_few_rows_for_the_labels_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    rows = {"path": "rows.jsonl", "language": {"column": "language"}}
    labels = [row["response"] for row in ROWS]
    tasks = {"a": {"data": rows, "labels": sorted(set(labels))}}
    made = recipe(tmp_path, tasks=tasks, during_training={"every": 5, "limit": 1, "best": "bits per byte"})
    with pytest.raises(DataError, match=r"evaluation\.during_training\.limit: 1 rows can't show"):
        drawn_rows(made)


def test_a_training_process_loads_nothing_of_evaluation_unless_it_is_asked_to_score() -> None:
    code = (
        "import sys, dudi_kit.train.worker, dudi_kit.pipeline.during; "
        "print([name for name in sys.modules if name.startswith('dudi_kit.evaluate.')])"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
