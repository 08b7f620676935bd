"""Every shipped recipe is valid, and those over hub models are planned for eight processes, on a stand-in hub.

`recipes/examples` need weights and data that are fetched by hand; they are validated here and no more.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, reduce
from operator import getitem
from pathlib import Path

import pytest

from dudi_kit.plan.arithmetic import arithmetic
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import Plan, read_plan
from dudi_kit.recipe.load import check_recipe, load_recipe
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.data import HubRows
from dudi_kit.recipe.schema.models import Pretrained, TeacherModel
from tests.small import call
from tests.standin_hub import MODELS, SENTENCES, StandinHub, chat_rows

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
COMMIT_UNKNOWN = {
    "aisingapore/Qwen-SEA-LION-v4-32B-IT",
    "aisingapore/Apertus-SEA-LION-v4-8B-IT",
    "aisingapore/Small-SEA-Instruct-2602",
}
"""Named at `main`, since we know no commit of theirs; a comment in the recipe says so."""

LANGUAGES = ["id", "ms", "my", "ta", "th", "tl", "vi"]
ROWS = 12
"""Of each language on the stand-in hub; the real dataset has 4,000 for a recipe to take."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes"))


def test_there_are_recipes():
    assert ROOT / "recipes/quickstart.yaml" in RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_every_shipped_recipe_is_valid_and_pinned_where_a_commit_is_known(path):
    values = load_recipe(path).values
    for finding in check_recipe(path).findings:
        section = reduce(getitem, finding.path.split(".")[:-1], values)
        assert finding.code == "unpinned", str(finding)
        assert section.get("hub", section.get("model")) in COMMIT_UNKNOWN


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
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


# Plans on the stand-in hub


def test_the_stand_in_hub_is_one_for_a_process_of_its_own_too(tmp_path):
    hub = StandinHub(tmp_path)
    folder = hub.add_model("Qwen/Qwen2.5-0.5B")
    asked = "from huggingface_hub import hf_hub_download as get; print(get('Qwen/Qwen2.5-0.5B', 'config.json'))"
    command = [sys.executable, "-c", asked]
    found = subprocess.run(command, env=os.environ | hub.environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(folder / "config.json")


LOADED = {path: load_recipe(path).recipe for path in RECIPES}


def uses_the_hub(recipe: Recipe) -> bool:
    return any(isinstance(dataset, HubRows) for dataset in recipe.data.train.values())


ON_HUB = [path for path in RECIPES if uses_the_hub(LOADED[path])]
ALIGNED = {"sealion_gemma_to_0.5b.yaml", "sealion_apertus_to_0.5b.yaml"}
"""Their teacher's tokenizer is not the student's."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandinHub]:
    """Each model and dataset under the revision that the recipes ask for, and under no other."""
    hub = StandinHub(tmp_path_factory.mktemp("hub"))
    rows = {subset: chat_rows(subset, ROWS) for subset in SENTENCES}
    for recipe in (LOADED[path] for path in ON_HUB):
        for model in (recipe.teacher, recipe.student):
            if isinstance(model, Pretrained):
                hub.add_model(model.model, model.revision or "main")
        for dataset in recipe.data.train.values():
            if isinstance(dataset, HubRows):
                hub.add_dataset(dataset.hub, rows, dataset.revision)
    with hub.in_use():
        yield hub


@pytest.fixture(scope="module")
def planned(hub: StandinHub, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Plan]:
    """What `dudi-kit plan … --hardware 8xH100-80G` wrote for a recipe; each is planned once."""
    outputs = tmp_path_factory.mktemp("outputs")

    @cache
    def plan(path: Path) -> Plan:
        result = call("plan", path, "--hardware", "8xH100-80G", "--output", outputs)
        assert result.exit_code == 0, result.stderr
        return read_plan(RunDir(outputs / LOADED[path].name))

    return plan


@pytest.mark.parametrize("path", ON_HUB, ids=name_of)
def test_every_recipe_over_hub_models_is_planned_for_eight_processes(path, planned):
    recipe = LOADED[path]
    plan = planned(path)
    assert {code: share.rows for code, share in plan.languages.items()} == dict.fromkeys(LANGUAGES, ROWS)
    assert (plan.processes, plan.batch_size) == (8, 64)
    assert plan.processes * plan.micro_batch_size * plan.accumulation == plan.batch_size
    assert plan.steps == 2, "84 rows in batches of 64"
    assert isinstance(recipe.student, Pretrained)
    assert plan.parameters == pytest.approx(MODELS[recipe.student.model].parameters, rel=0.01)
    assert plan.start is not None
    assert ".cold-start-" in plan.start.path, "the student starts from its SFT"
    asks_the_teacher = recipe.signals.off_policy.weight + recipe.signals.on_policy.weight > 0
    assert (plan.vocabulary is not None) == asks_the_teacher
    assert isinstance(recipe.teacher, TeacherModel)
    if plan.vocabulary is not None:
        assert plan.vocabulary.mapping == ("align" if path.name in ALIGNED else "shared")
        assert plan.teacher_parameters == pytest.approx(MODELS[recipe.teacher.model].parameters, rel=0.01)
        assert plan.vocabulary.reason in plan.notices
    assert plan.outside == []


def test_all_that_is_compared_starts_from_the_same_cold_start(planned):
    compared = [path for path in ON_HUB if path.parent.name in ("ablations", "baselines")]
    compared.append(ROOT / "recipes/paper/qwen2.5_3b_to_0.5b.yaml")
    compared.remove(ROOT / "recipes/baselines/sequence_kd.yaml")  # it starts from what the teacher wrote, too
    starts = {plan.start.path for plan in map(planned, compared) if plan.start}
    assert len(compared) > 10
    assert len(starts) == 1, "built once, and reused by the others"


@pytest.mark.parametrize("path", ON_HUB, ids=name_of)
def test_28_000_rows_are_438_steps_of_64(path):
    recipe = LOADED[path]
    limits = [dataset.limit for dataset in recipe.data.train.values()]
    assert limits == [4000] * 7
    assert sorted(str(dataset.language) for dataset in recipe.data.train.values()) == LANGUAGES
    assert recipe.data.max_length == 1024
    assert arithmetic(recipe.training, rows_per_epoch=sum(limits), processes=8).steps == 438


def test_the_sealion_teacher_is_packed_and_its_own_pieces_are_cut(planned):
    plan = planned(ROOT / "recipes/sealion_to_0.5b.yaml")
    assert plan.teacher is not None
    assert (plan.teacher.quantization, plan.teacher.dtype) == ("nf4", "bf16")
    assert plan.vocabulary is not None
    assert "of the teacher's 151,936 rows" in plan.vocabulary.reason
    small = planned(ROOT / "recipes/paper/qwen3_4b_to_0.6b.yaml").vocabulary
    assert small is not None
    assert small.size == plan.vocabulary.size + 2, "<think> and </think>, which only Qwen3 has"


def test_the_sealion_teacher_of_the_adapter_is_shared_out_and_fits(planned):
    plan = planned(ROOT / "recipes/sealion_lora.yaml")
    assert plan.teacher is not None
    assert (plan.teacher.quantization, plan.teacher.placement) == ("none", "sharded")
    assert plan.trained_parameters == pytest.approx(0.024 * plan.parameters, rel=0.05)
    assert plan.memory.fits
    assert plan.memory.chosen.phases["update"]["teacher"] < 2 * plan.teacher_parameters / 4


def test_a_dataset_under_another_name_is_changed_in_one_place():
    named = [path for path in RECIPES if "aisingapore/Small-SEA-Instruct-2602" in path.read_text(encoding="utf-8")]
    assert [name_of(path) for path in named] == ["paper/qwen2.5_3b_to_0.5b.yaml"]
