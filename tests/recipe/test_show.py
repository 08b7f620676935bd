"""`show`: what is printed is the same recipe, says where each value comes from, and what was changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dudi_kit.recipe.emit import yaml_lines
from dudi_kit.recipe.load import Checked, check_recipe
from dudi_kit.recipe.show import Shown, changes, merged, resolved
from dudi_kit.recipe.yaml_nodes import UNSEEN, Source, lines_of, read_yaml
from tests.recipe.conftest import MINIMAL

ROOT = Path(__file__).parents[2]
FOLDERS = (Path("recipes"), Path("dudi_kit/recipe/example"))
RECIPES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.yaml"))

View = Callable[[Path], list[Shown]]


def text_of(lines: list[Shown]) -> str:
    return "".join(f"{line.text}{'  # ' + line.note if line.note else ''}\n" for line in lines)


def told(checked: Checked) -> set[tuple[str, str, str]]:
    """Its findings but for their places, which differ."""
    return {(finding.code, finding.path, finding.message) for finding in checked.findings}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all recipes that others can be written beside."""
    copy = tmp_path_factory.mktemp("copy")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder)
    return copy


@pytest.mark.parametrize("path", RECIPES, ids=str)
@pytest.mark.parametrize("view", [merged, resolved])
def test_what_is_shown_is_the_same_recipe_and_as_valid(path: Path, view: View, shipped: Path) -> None:
    original, shown = shipped / path, (shipped / path).with_name("shown.yaml")
    shown.write_text(text_of(view(original)), encoding="utf-8")
    again, before = check_recipe(shown), check_recipe(original)
    assert {(f.code, f.path, f.message) for f in again.findings} == {
        (f.code, f.path, f.message) for f in before.findings
    }
    assert again.loaded is not None
    assert before.loaded is not None
    assert again.loaded.recipe == before.loaded.recipe


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe, in a folder of its own, that extends one in another."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "mine").mkdir()
    base = MINIMAL.replace("    corpus: {builtin: train}", "    own: {path: 'rows/{language}.csv', languages: [id]}")
    Path("base/base.yaml").write_text(f"{base}training: {{seed: 3, steps: 5}}\n", encoding="utf-8")
    Path("mine/mine.yaml").write_text(
        "extends: ../base/base.yaml\nname: mine\ntraining: {epochs: 2}\n", encoding="utf-8"
    )
    return Path("mine/mine.yaml")


def test_each_value_has_its_origin_beside_it_and_paths_are_the_recipes_own(family: Path) -> None:
    assert (
        text_of(merged(family, [("training.batch_size", "8")]))
        == """\
name: mine
teacher:
  model: ../base/teacher  # ../base/base.yaml:2
student:
  model: ../base/student  # ../base/base.yaml:3
data:
  train:
    own:
      path: ../base/rows/{language}.csv  # ../base/base.yaml:6
      languages: [id]  # ../base/base.yaml:6
training:
  seed: 3  # ../base/base.yaml:7
  epochs: 2
  batch_size: 8  # --set
"""
    )


def test_a_model_that_moves_below_is_still_no_hub_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/base.yaml").write_text(MINIMAL, encoding="utf-8")
    (tmp_path / "top.yaml").write_text("extends: sub/base.yaml", encoding="utf-8")
    assert Shown("  model: ./sub/teacher", "sub/base.yaml:2") in merged(tmp_path / "top.yaml")


def test_a_recipe_that_breaks_rules_can_be_shown_but_not_resolved(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(f"{MINIMAL}training: {{sede: 1}}\n", encoding="utf-8")
    assert merged(path)[-1] == Shown("  sede: 1")
    with pytest.raises(ValueError, match="sede"):
        resolved(path)


def test_defaults_that_may_not_be_written_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "alone.yaml"
    off = "signals: {sft: {weight: 1}, sequence: {weight: 0}, off_policy: {weight: 0}, on_policy: {weight: 0}}\n"
    path.write_text(MINIMAL.replace("teacher: {model: ./teacher}\n", "") + off, encoding="utf-8")
    shown = text_of(resolved(path))
    assert "models: [teacher" not in shown
    assert "batch_size: 16  # default" in shown


def test_changes_against_the_parent(family: Path) -> None:
    before, found = changes(family, [("training.seed", "4")])
    assert before == "base/base.yaml"
    assert [f"{change.sign} {change.text}" for change in found] == [
        "- name: small",
        "+ name: mine",
        "  training:",
        "-   seed: 3",
        "+   seed: 4",
        "+   epochs: 2",
        "-   steps: 5",
    ]


def test_changes_against_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "alone.yaml"
    student = "student: {model: ./s, cold_start: {steps: 3}}\n"
    signals = "signals: {on_policy: {weight: 0.5, divergence: {type: jsd}}}\n"
    path.write_text(MINIMAL.replace("student: {model: ./student}\n", student) + signals, encoding="utf-8")
    before, found = changes(path)
    assert before == "defaults"
    assert [f"{change.sign} {change.text}" for change in found] == [
        "+ name: small",
        "  teacher:",
        "+   model: ./teacher",
        "  student:",
        "+   model: ./s",
        "    cold_start:",
        "+     steps: 3",
        "  data:",
        "    train:",
        "      corpus:",
        "+       builtin: train",
        "  signals:",
        "    on_policy:",
        "      divergence:",
        "-       type: reverse_kl",
        "+       type: jsd",
    ]


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\t\n\r"), max_size=20)
KEYS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="".join(UNSEEN)), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_any_values_are_read_back_as_they_were(values: dict[str, object]) -> None:
    text = "\n".join(line.text for line in yaml_lines(values))
    reading = read_yaml(text, Source("x", Path(), lines_of(text)))
    assert reading.findings == []
    assert reading.root.plain() == values


@pytest.mark.parametrize(
    "text", ["no", "1e-4", "null", "~", "a: b", "- x", "# c", "ไทย", "\u202e", "a\tb", "a\nb", " x", "<<", ""]
)
def test_texts_stay_texts(text: str) -> None:
    (line,) = yaml_lines({"key": text})
    assert read_yaml(line.text, Source("x", Path(), (line.text,))).root.plain() == {"key": text}
    assert not {"\u202e", "\t"} & set(line.text), "a terminal would turn or widen it"
