"""`extends` and overrides: what is merged, what is replaced, where it came from."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from dudi_kit.recipe.anatomy import branches, keys
from dudi_kit.recipe.compose import SWITCHES, _matches
from dudi_kit.recipe.diagnostics import InvalidRecipeError, Problem
from dudi_kit.recipe.load import check_recipe, load_recipe
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.models import PretrainedStudent, ScratchStudent, TeacherModel, TeacherRecipe
from dudi_kit.recipe.schema.signals import JSD, ForwardKL
from tests.recipe.conftest import Load


def test_mappings_merge_and_scalars_replace(load: Load) -> None:
    parent = "extends: minimal.yaml\ntraining: {seed: 1, batch_size: 8}\n"
    recipe = load("extends: parent.yaml\nname: child\ntraining: {seed: 2}\n", parent=parent).recipe
    assert (recipe.name, recipe.training.seed, recipe.training.batch_size) == ("child", 2, 8)
    assert recipe.teacher is not None


def test_lists_replace(load: Load) -> None:
    parent = "extends: minimal.yaml\nevaluation: {models: [teacher, before, after]}\n"
    assert load("extends: parent.yaml\nevaluation: {models: [after]}", parent=parent).recipe.evaluation.models == [
        "after"
    ]


def test_null_removes_the_parents_key(load: Load) -> None:
    off = "signals: {off_policy: {weight: 0}, on_policy: {weight: 0}}\ntraining: {steps: 5, seed: 3}\n"
    loaded = load("extends: parent.yaml\nteacher: null\ntraining: {steps: ~}\n", parent=f"extends: minimal.yaml\n{off}")
    assert loaded.recipe.teacher is None
    assert (loaded.recipe.training.steps, loaded.recipe.training.seed) == (None, 3)


def test_another_variant_leaves_nothing_of_the_parents(load: Load) -> None:
    parent = """\
extends: minimal.yaml
teacher: {model: ./t, chat_template: chatml}
student: {init: scratch, architecture: {layers: 2}, tokenizer: {from: ./tok, revision: abc}}
signals:
  on_policy: {divergence: {type: jsd, beta: 0.3}, weight: 0.7}
  sequence: {reference: {type: refreshed, every: 5}}
"""
    child = """\
extends: parent.yaml
teacher: {recipe: teacher.yaml}
student: {tokenizer: {vocabulary_size: 500}}
data: {train: {corpus: {path: a.csv, language: id, english: {format: {type: chat}}}}}
signals: {on_policy: {divergence: {type: forward_kl}}, sequence: {reference: {type: cold_start}}}
"""
    recipe = load(child, parent=parent, teacher="").recipe
    assert isinstance(recipe.teacher, TeacherRecipe)
    assert isinstance(recipe.student, ScratchStudent)
    assert recipe.student.architecture.layers == 2
    assert recipe.signals.on_policy.divergence == ForwardKL(type="forward_kl")
    assert recipe.signals.on_policy.weight == 0.7
    assert recipe.signals.sequence.reference.type == "cold_start"


def test_every_union_of_the_schema_has_its_switch() -> None:
    def unions(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for key, field in keys(model).items():
            below, here = branches(field.annotation), (*path, key)
            if get_origin(below[0].type) is dict:
                below, here = branches(get_args(below[0].type)[1]), (*here, "*")
            variants = [branch.model for branch in below if branch.model]
            if len(variants) > 1:
                yield here
            for variant in variants:
                yield from unions(variant, here)

    def known(path: tuple[str, ...]) -> bool:
        return any(_matches(path, switch.where) for switch in SWITCHES)

    found = set(unions(Recipe, ()))
    assert len(found) >= 12
    assert [path for path in found if not known(path)] == []


def test_the_same_variant_merges(load: Load) -> None:
    parent = "extends: minimal.yaml\nsignals: {on_policy: {divergence: {type: jsd, beta: 0.3}}}\n"
    same = load("extends: parent.yaml\nsignals: {on_policy: {divergence: {type: jsd}}}", parent=parent)
    assert same.recipe.signals.on_policy.divergence == JSD(type="jsd", beta=0.3)
    default = load("extends: minimal.yaml\nstudent: {init: pretrained, tokenizer: ./t}", parent=parent)
    assert isinstance(default.recipe.student, PretrainedStudent)


def test_a_new_model_does_not_keep_the_old_ones_revision(load: Load) -> None:
    parent = "extends: minimal.yaml\nteacher: {model: a/b, revision: abc, dtype: fp32}\n"
    teacher = load("extends: parent.yaml\nteacher: {model: c/d}\n", parent=parent).recipe.teacher
    assert isinstance(teacher, TeacherModel)
    assert (teacher.model, teacher.revision, teacher.dtype) == ("c/d", None, "fp32")


@pytest.mark.parametrize(("given", "steps", "epochs"), [("steps: 5", 5, None), ("epochs: 2", None, 2.0)])
def test_steps_replace_epochs_and_the_other_way_round(
    load: Load, given: str, steps: int | None, epochs: float | None
) -> None:
    other = "epochs: 3" if "steps" in given else "steps: 9"
    recipe = load(
        f"extends: parent.yaml\ntraining: {{{given}}}", parent=f"extends: minimal.yaml\ntraining: {{{other}}}"
    ).recipe
    assert (recipe.training.steps, recipe.training.epochs) == (steps, epochs)


def test_cycles_are_errors_with_the_chain(load: Load) -> None:
    with pytest.raises(InvalidRecipeError, match=r"recipe\.yaml → .*a\.yaml → .*b\.yaml → .*a\.yaml"):
        load("extends: a.yaml", a="extends: b.yaml", b="extends: a.yaml")


def test_long_chains_are_refused(load: Load) -> None:
    files = {f"p{n}": f"extends: p{n + 1}.yaml" for n in range(20)}
    with pytest.raises(InvalidRecipeError, match="more than 10 parents"):
        load("extends: p0.yaml", **files)


def test_overrides_come_last_and_mean_yaml(load: Load) -> None:
    overrides = (("training.learning_rate", "1e-4"), ("training.seed", "1"), ("training.seed", "2"), ("name", "no"))
    recipe = load("extends: minimal.yaml\ntraining: {seed: 9}", overrides).recipe
    assert (recipe.training.learning_rate, recipe.training.seed, recipe.name) == (1e-4, 2, "no")


def test_overrides_remove_replace_and_switch(load: Load) -> None:
    text = "extends: minimal.yaml\ntraining: {epochs: 2}\nsignals: {on_policy: {divergence: {type: jsd, beta: 0.1}}}"
    overrides = (
        ("training.steps", "7"),
        ("student.architecture.layers", "2"),
        ("student.init", "scratch"),
        ("signals.on_policy.divergence", "{type: forward_kl}"),
        ("evaluation.models", "[after]"),
        ("description", ""),
    )
    recipe = load(text, overrides).recipe
    assert (recipe.training.steps, recipe.training.epochs) == (7, None)
    assert isinstance(recipe.student, ScratchStudent)
    assert recipe.student.architecture.layers == 2
    assert recipe.signals.on_policy.divergence == ForwardKL(type="forward_kl")
    assert recipe.evaluation.models == ["after"]


def test_an_override_reaches_names_with_dots(load: Load) -> None:
    text = "extends: minimal.yaml\ndata: {train: {small.v2: {builtin: dev}}}"
    recipe = load(text, (("data.train.small.v2.limit", "5"),)).recipe
    assert recipe.data.train["small.v2"].limit == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("training.sede", "1"), "command line: error[unknown-key] training.sede: no such key\n"),
        (
            ("training.seed", "x"),
            "command line: error[wrong-type] training.seed: a whole number expected, got text 'x'\n",
        ),
        (("training.seed", "[1"), "command line: error[yaml]: "),
        (("training..seed", "1"), "command line: error[bad-override]: "),
        (("training.seed", "&a 1"), "command line: error[anchor]: "),
        (("extends", "other.yaml"), "command line: error[unknown-key] extends: "),
    ],
)
def test_mistakes_in_overrides_point_to_the_command_line(
    minimal: Path, override: tuple[str, str], message: str
) -> None:
    findings = check_recipe(minimal, [override]).findings
    assert [finding.line for finding in findings] == [0]
    assert findings[0].render().startswith(message)


def test_the_caret_stands_under_the_overrides_value(minimal: Path) -> None:
    (finding,) = check_recipe(minimal, [("training.seed", "x")]).findings
    assert finding.render().split("\n")[1:] == ["      | --training.seed=x", "      |                 ^"]


def test_places_keep_their_file(load: Load) -> None:
    loaded = load("extends: parent.yaml\nname: x", parent="extends: minimal.yaml\ntraining:\n  seed: 4\n")
    place = loaded.locate(Problem(("training", "seed"), "x", "x"))
    assert (Path(place.file).name, place.line, place.column) == ("parent.yaml", 3, 9)
    assert [file.name for file in loaded.files] == ["recipe.yaml", "parent.yaml", "minimal.yaml"]


def test_every_path_is_relative_to_the_text_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, sub, called = tmp_path / "base", tmp_path / "sub", tmp_path / "called"
    for folder in (base / "tiny", sub, called):
        folder.mkdir(parents=True)
    (base / "base.yaml").write_text(
        """\
name: base
teacher: {recipe: ../teachers/t.yaml}
student: {model: tiny, tokenizer: Qwen/Qwen3-4B, chat_template: ./own.jinja}
data:
  train:
    a: {path: "rows/{language}.csv", languages: [id], english: {path: en.csv, key: id}}
  held_out:
    b: {path: /absolute/b.csv, language: id}
verbalizer: {demonstration: {template: {id: id.jinja}}}
evaluation: {tasks: {t: {data: {path: t.csv, language: th}}}}
""",
        encoding="utf-8",
    )
    (sub / "recipe.yaml").write_text(
        "extends: ../base/base.yaml\ndata: {held_out: {c: {path: c.csv, language: my}}}\n", encoding="utf-8"
    )
    for file in (tmp_path / "teachers/t.yaml", base / "own.jinja", base / "id.jinja"):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    monkeypatch.chdir(called)
    values = load_recipe(sub / "recipe.yaml", [("evaluation.tasks.t.data.path", "./u.csv")]).values
    assert values["teacher"]["recipe"] == str(tmp_path / "teachers/t.yaml")
    assert values["student"]["model"] == str(base / "tiny")
    assert values["student"]["tokenizer"] == "Qwen/Qwen3-4B"
    assert values["student"]["chat_template"] == str(base / "own.jinja")
    assert values["data"]["train"]["a"]["path"] == str(base / "rows/{language}.csv")
    assert values["data"]["train"]["a"]["english"]["path"] == str(base / "en.csv")
    assert values["data"]["held_out"]["b"]["path"] == "/absolute/b.csv"
    assert values["data"]["held_out"]["c"]["path"] == str(sub / "c.csv")
    assert values["verbalizer"]["demonstration"]["template"]["id"] == str(base / "id.jinja")
    assert values["evaluation"]["tasks"]["t"]["data"]["path"] == str(called / "u.csv")


def test_the_word_teacher_is_no_path(load: Load, tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    text = "extends: minimal.yaml\nstudent: {init: scratch, tokenizer: {from: teacher}}"
    assert load(text).values["student"]["tokenizer"]["from"] == "teacher"


def test_requirements_of_parents_hold_beside_ones_own(load: Load) -> None:
    parent = 'extends: minimal.yaml\nrequires: ">=0.0.1"\n'
    assert load('extends: parent.yaml\nrequires: "<99"', parent=parent).recipe.requires == "<99,>=0.0.1"
    assert load("extends: parent.yaml", parent=parent).recipe.requires == ">=0.0.1"


def test_a_version_on_the_command_line_is_asked_about_too(minimal: Path) -> None:
    for override, code in ((("version", "2"), "version"), (("requires", "'>=99'"), "requires")):
        (finding,) = check_recipe(minimal, [override, ("trainig.seed", "1")]).findings
        assert (finding.file, finding.code) == ("command line", code)
