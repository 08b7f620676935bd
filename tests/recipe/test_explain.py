"""`explain`: what it says agrees with the schema, for every path that there is."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest

from dudi_kit.recipe.anatomy import Branch, branches, keys
from dudi_kit.recipe.explain import EXAMPLE, NEEDED, UnknownPathError, explain
from dudi_kit.recipe.load import check_recipe
from dudi_kit.recipe.origins import ORIGINS
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.yaml_nodes import Source, lines_of, read_yaml


def paths(here: list[Branch], above: str = "") -> Iterator[str]:
    """Every path of the schema."""
    for branch in here:
        if get_origin(branch.type) is dict:
            yield f"{above}.*"
            yield from paths(branches(get_args(branch.type)[1]), f"{above}.*")
        for key, field in keys(branch.model).items() if branch.model else ():
            path = f"{above}.{key}".removeprefix(".")
            yield path
            yield from paths(branches(field.annotation), path)


PATHS = sorted(set(paths([Branch(None, Recipe)])))


def test_every_path_can_be_explained_and_has_an_example_that_is_yaml() -> None:
    assert len(PATHS) > 150
    for path in PATHS:
        explanation = explain(path)
        assert explanation.facts or path.endswith("*"), path
        assert all(facts.type for facts in explanation.facts), path
        text = "\n".join(line for line in explanation.example if line != "  …")
        tree = read_yaml(text, Source("x", EXAMPLE, lines_of(text))).root  # type: ignore[arg-type]
        parts = tuple("mine" if part == "*" else part for part in path.split("."))
        assert tree.at(parts[:1]), path


def test_a_key_of_a_variant_is_shown_with_what_tells_the_variant(tmp_path: Path) -> None:
    assert explain("teacher.cache.k").example == ["teacher:", "  cache:", "    type: top_k", "    k: 32"]
    assert explain("student.architecture.layers").example[:2] == ["student:", "  init: scratch"]
    assert explain("student.revision").example == ["student:", "  revision: …"]
    for number, path in enumerate(PATHS):
        file = tmp_path / f"{number}.yaml"
        file.write_text("\n".join(line for line in explain(path).example if line != "  …"), encoding="utf-8")
        misplaced = [f for f in check_recipe(str(file)).findings if "of this variant" in f.message]
        assert misplaced == [], path


def test_every_field_has_a_meaning_but_those_that_tell_variants() -> None:
    facts = {path: [f for f in explain(path).facts if not f.meaning] for path in PATHS}
    assert [path for path, without in facts.items() if without and path.split(".")[-1] not in ("type", "init")] == []


def test_a_number() -> None:
    explanation = explain("signals.sequence.beta")
    ((where, kind, default, meaning),) = explanation.facts
    assert (where, kind, default) == ("", "a number > 0", "0.1")
    assert meaning == "Sharpness of the preference, in 1/nats."
    assert explanation.origin.unit == "1/nats"
    assert "DPO" in explanation.origin.source
    assert explanation.example == ["signals:", "  sequence:", "    beta: 0.2"]


def test_a_choice_between_mappings_shows_each_with_its_keys() -> None:
    explanation = explain("signals.on_policy.divergence")
    assert explanation.facts[0].type == "a mapping, one of 5 kinds"
    assert explanation.facts[0].default == "{type: reverse_kl}"
    variants = {variant.mark: [entry.key for entry in variant.entries] for variant in explanation.variants}
    assert variants == {
        "type: reverse_kl": [],
        "type: forward_kl": [],
        "type: jsd": ["beta"],
        "type: skew_forward_kl": ["alpha"],
        "type: skew_reverse_kl": ["alpha"],
    }


def test_a_key_that_differs_between_variants_is_told_for_each() -> None:
    assert [(f.where, f.default) for f in explain("teacher.dtype").facts] == [
        ("model: …", "bf16"),
        ("recipe: …", "fp32"),
    ]
    (prompt, of_template) = explain("data.train.mine.format.prompt").facts
    assert (prompt.where, prompt.default) == ("type: columns", "prompt")
    assert (of_template.where, of_template.default) == ("type: template", NEEDED)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("training.betas", "a list of 2: a number ≥ 0, ≤ 1"),
        ("training.seed", "a whole number ≥ 0, < 2,147,483,648"),
        ("training.precision", "one of fp32, bf16"),
        ("data.train", "names of your own, each with a mapping, one of 3 kinds"),
        ("training", "a mapping"),
        ("name", "text"),
        ("data.train.*.demonstrate", "true or false"),
        ("evaluation.models", "a list, each one of teacher, before, after"),
    ],
)
def test_types_in_words(path: str, kind: str) -> None:
    assert explain(path).facts[0].type == kind


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("signals.on_polcy", "did you mean 'signals.on_policy'?"),
        ("training.lr", "did you mean 'training.learning_rate'?"),
        ("seed", "did you mean 'training.seed'?"),
        ("lr", "did you mean 'training.learning_rate'?"),
        ("training.zzz.x", "training has epochs, steps"),
        ("zzz", "a recipe has version, requires, name"),
        ("extnds", "did you mean 'extends'?"),
        ("training.seed.x", "training.seed has no keys"),
    ],
)
def test_unknown_paths_get_the_nearest(path: str, hint: str) -> None:
    with pytest.raises(UnknownPathError) as unknown:
        explain(path)
    assert unknown.value.hint.startswith(hint)


def test_the_key_that_no_loaded_recipe_has_is_explained_too() -> None:
    told = explain("extends")
    assert (told.facts[0].type, told.facts[0].default, told.example) == ("text", "not set", ["extends: base.yaml"])
    assert "Mappings merge" in told.facts[0].meaning


def test_every_origin_is_of_a_field_that_exists() -> None:
    assert set(ORIGINS) <= set(PATHS)


def test_what_has_a_default_that_matters_says_where_it_comes_from() -> None:
    for path in (
        "training.learning_rate",
        "signals.sequence.weight",
        "signals.on_policy.weight",
        "rollouts.temperature",
    ):
        assert explain(path).origin.source, path


def test_the_recipe_that_examples_are_cut_from_is_valid() -> None:
    assert check_recipe(str(EXAMPLE)).findings == ()
