"""The JSON schema says what we say; a resolved recipe is the recipe."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from dudi_kit.recipe.diagnostics import InvalidRecipeError, errors
from dudi_kit.recipe.load import check_recipe, load_recipe
from dudi_kit.recipe.publish import json_schema, recipe_from_resolved, resolved_json, schema_text
from dudi_kit.recipe.schema import Recipe
from tests.recipe import mutants
from tests.recipe.conftest import Load
from tests.recipe.test_golden import GOLDEN, read_cases

ROOT = Path(__file__).parents[2]
FULL = ROOT / "dudi_kit/recipe/example/recipe.yaml"
VALIDATOR = Draft7Validator(json_schema())


def test_committed_schema_is_fresh() -> None:
    committed = (ROOT / "schemas" / "recipe.v1.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "write it anew: dudi-kit schema > schemas/recipe.v1.schema.json"


def test_it_is_a_schema_of_draft_7() -> None:
    Draft7Validator.check_schema(json_schema())
    assert "$defs" not in schema_text()
    assert "prefixItems" not in schema_text()


def test_every_mapping_with_fixed_keys_is_closed() -> None:
    for name, definition in json_schema()["definitions"].items():
        assert definition.get("additionalProperties") is False, name


def test_editors_find_a_description_for_most_keys() -> None:
    weight = json_schema()["definitions"]["SequenceSignal"]["properties"]["weight"]
    assert weight["description"] == "Multiplies the signal in the objective (α in the paper)."
    partial = json_schema()["definitions"]["PartialSequenceSignal"]["properties"]["weight"]
    assert partial["description"] == weight["description"]


def test_it_accepts_a_recipe_with_everything() -> None:
    values = load_recipe(FULL).values
    assert [error.message for error in VALIDATOR.iter_errors(values)] == []


@pytest.mark.parametrize(
    "change",
    [
        {"trainig": {}},
        {"signals": {"on_policy": {"temprature": 1}}},
        {"signals": {"on_policy": {"divergence": {"type": "jsd", "alpha": 0.1}}}},
        {"training": {"precision": "fp16"}},
        {"training": {"betas": [0.9]}},
        {"training": None},
        {"data": {"train": {"a b": {"builtin": "train"}}}},
        {"data": {"train": {"a": {"path": "a.csv", "language": "xx"}}}},
        {"teacher": {"model": "a", "recipe": "b"}},
        {"version": 2},
        {"extends": 1},
    ],
)
def test_it_rejects_what_we_reject(change: dict[str, Any]) -> None:
    values = load_recipe(FULL).values
    assert not VALIDATOR.is_valid({**values, **change})


def test_a_child_may_be_partial_but_not_misspelt() -> None:
    assert VALIDATOR.is_valid({"extends": "a.yaml"})
    assert VALIDATOR.is_valid(
        {"extends": "a.yaml", "teacher": None, "training": {"steps": None}, "data": {"max_length": 5}}
    )
    assert VALIDATOR.is_valid({"extends": "a.yaml", "student": {"cold_start": {"steps": 3}}})
    assert not VALIDATOR.is_valid({"extends": "a.yaml", "training": {"sede": 1}})
    assert not VALIDATOR.is_valid({"training": {"seed": 1}})


def test_it_rejects_every_unknown_key_of_the_golden_suite(tmp_path: Path) -> None:
    for title, text, answer in read_cases(GOLDEN / "keys.txt"):
        if "no such key" in answer and "extends: base.yaml" in text:
            (tmp_path / "base.yaml").write_text((GOLDEN / "base.yaml").read_text(encoding="utf-8"), encoding="utf-8")
            (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
            values = _plain(tmp_path / "recipe.yaml")
            assert not VALIDATOR.is_valid(values), title


BEYOND_A_SCHEMA = {
    # The text, of which a schema sees the values only.
    *(
        "alias",
        "anchor",
        "bad-key",
        "bad-number",
        "duplicate-key",
        "encoding",
        "merge-key",
        "tag",
        "too-deep",
        "too-large",
    ),
    "bad-character",
    # What stands in other files.
    *("extends-cycle", "missing-file", "missing-parent", "recipe-cycle", "unknown-task"),
    # What only the command line may say.
    "foreign-server",
    # Rules that span fields.
    *(
        "duplicate",
        "exclusive",
        "needs-best",
        "needs-data",
        "needs-english",
        "needs-examples",
        "needs-folder",
        "needs-key",
        "needs-labels",
        "needs-language",
        "needs-size",
        "needs-teacher",
        "needs-versions",
        "no-effect",
    ),
    *("not-divisible", "not-here", "not-scored", "not-together", "nothing-to-do", "outside", "too-few", "too-long"),
    "unknown-engine-key",
    # Rules in the words of other tools: hub names, version specifiers.
    *("bad-model-name", "bad-value", "requires"),
}
"""Codes of findings that no editor can show; with everything else, schema and `validate` agree."""

WITHOUT_THE_PARENT = ("got nothing", "no key of this variant", "is needed")
"""Ends of messages about a child that only who knows its parent can tell to be wrong."""


def _agree(path: Path) -> None:
    """The schema never refuses what we accept, and where it accepts what we refuse it can't know better."""
    try:
        values = _plain(path)
    except InvalidRecipeError:
        return
    found = errors(check_recipe(path).findings)
    if not VALIDATOR.is_valid(values):
        assert found, path.read_text(encoding="utf-8")
        return
    ends = WITHOUT_THE_PARENT if "extends" in values else ()
    own = [finding for finding in found if finding.file == str(path) and not finding.message.endswith(ends)]
    told = [finding for finding in own if finding.code not in BEYOND_A_SCHEMA]
    assert told == [], path.read_text(encoding="utf-8")


def test_it_agrees_with_us_on_every_golden_recipe(tmp_path: Path) -> None:
    for parent in GOLDEN.glob("*.yaml"):
        shutil.copy(parent, tmp_path)
    for file in GOLDEN.glob("*.txt"):
        for _, text, _ in read_cases(file):
            (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
            _agree(tmp_path / "recipe.yaml")


def test_it_agrees_with_us_on_mutants(tmp_path: Path) -> None:
    path = mutants.lay_out(tmp_path)
    for text in mutants.texts(250, seed=1):
        path.write_text(text, encoding="utf-8")
        _agree(path)


def _plain(path: Path) -> Any:
    from dudi_kit.recipe.yaml_nodes import Source, lines_of, read_yaml

    text = path.read_text(encoding="utf-8")
    return read_yaml(text, Source(str(path), path.parent, lines_of(text))).root.plain()


def test_a_resolved_recipe_is_the_recipe() -> None:
    recipe = load_recipe(FULL).recipe
    text = resolved_json(recipe)
    assert recipe_from_resolved(text) == recipe
    assert resolved_json(recipe_from_resolved(text)) == text


def test_resolved_text_is_readable_complete_and_in_order(load: Load) -> None:
    resolved = json.loads(resolved_json(load("extends: minimal.yaml").recipe))
    assert list(resolved) == list(Recipe.model_fields)
    assert resolved["training"]["learning_rate"] == 1e-5
    assert "กีฬา" in resolved_json(load_recipe(FULL).recipe)
    tokenizer = json.loads(resolved_json(load_recipe(FULL).recipe))["student"]["tokenizer"]
    assert tokenizer == {"from": "teacher", "revision": None}


def test_the_recipe_with_everything_has_no_finding() -> None:
    assert check_recipe(FULL).findings == ()
