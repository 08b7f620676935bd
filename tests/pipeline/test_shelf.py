"""`list`: which recipes lie in a folder, and how far each run got."""

import json
from pathlib import Path

import pytest

from dudi_kit.pipeline.shelf import default_folders, recipes, runs, state
from dudi_kit.plan.layout import RunDir

RECIPE = """\
name: {name}
description: about {name}
teacher: {{model: owner/teacher, revision: abc}}
student: {{init: scratch}}
data: {{train: {{a: {{path: "{{language}}.csv", languages: [th, my]}}, b: {{builtin: train}}}}}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("recipes/.hidden").mkdir(parents=True)
    Path("recipes/good.yaml").write_text(RECIPE.format(name="good"), encoding="utf-8")
    Path("recipes/.hidden/x.yaml").write_text(RECIPE.format(name="hidden"), encoding="utf-8")
    Path("recipes/broken.yaml").write_text(f"{RECIPE.format(name='broken')}trainig: {{}}\n", encoding="utf-8")
    Path("recipes/other.yaml").write_text("services: {web: {image: nginx}}\n", encoding="utf-8")
    Path("recipes/unreadable.yaml").write_text("a: [\n", encoding="utf-8")
    return Path("recipes")


def test_recipes_in_short_and_nothing_that_is_none(folder: Path) -> None:
    broken, good = recipes(folder)
    assert (broken.name, broken.mistakes) == ("broken", 1)
    assert (good.name, good.description, good.mistakes) == ("good", "about good", 0)
    assert (good.teacher, good.student) == ("owner/teacher", "llama from scratch")
    assert good.languages == ("th", "my", "all built-in")


def test_recipes_are_looked_for_here_first(folder: Path) -> None:
    assert default_folders()[0] == folder


def test_a_run_from_its_plan_to_its_scores(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "outputs" / "run")
    run.path.mkdir(parents=True)
    assert state(run) == ""
    run.plan.write_text(json.dumps({"steps": 1300}), encoding="utf-8")
    assert state(run) == "planned"
    run.metrics.write_text('{"step": 10}\n{"step": 1020}\n{"step": 10', encoding="utf-8")
    assert state(run) == "step 1,020 of 1,300"
    run.plan.unlink()
    assert state(run) == "step 1,020 of ?"
    run.final.mkdir()
    assert state(run) == "trained"
    run.evaluation.mkdir()
    assert state(run) == "evaluated"
    (tmp_path / "outputs" / "notes").mkdir()
    assert runs([tmp_path / "outputs", tmp_path / "nowhere"]) == [(run.path, "evaluated")]


def test_the_last_step_is_found_in_a_long_file(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_text(
        "".join(json.dumps({"step": n, "x": "y" * 100}) + "\n" for n in range(3000)), encoding="utf-8"
    )
    assert state(run) == "step 2,999 of ?"
