"""The whole way on a tiny chain: what a run leaves, what is reused, and what is refused.

Training runs in real processes of its own. The chain is trained once; tests that change it work on copies of it.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.small import DATASET, ROWS, STUDENT, TEACHER, call, changed, listing, write_chain, write_recipe, write_rows

WHOLE = {
    "data__held_out": {"rows": {**DATASET, "limit": 1}},
    "evaluation": {
        "tasks": {"where": {"data": {**DATASET, "limit": 1}, "metrics": ["accuracy", "chrf"], "max_new_tokens": 4}}
    },
    "training__steps": 3,
    "training__checkpoint_every": 1,
    "training__micro_batch_size": 2,
}


class Trained:
    """The folder of a chain that was run once, and what the command said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = write_chain(folder / "recipes", **WHOLE)
        self.before = listing(folder)
        command = [sys.executable, "-m", "dudi_kit.cli", "run", str(self.recipe), "--output", str(folder / "out")]
        self.result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)

    def copy(self, folder: Path) -> Path:
        """A copy of the folder in which a test may do what it wants; the path of its recipe."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return folder / "recipes" / "student.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("chain"))


def dudi(command: str, recipe: Path, *options: str) -> Result:
    return call(command, recipe, "--output", recipe.parent.parent / "out", *options)


def dependencies(out: Path) -> dict[str, Path]:
    """The folders of teacher and cold start."""
    found = {path.name.rpartition("-")[0]: path for path in out.iterdir() if path.name != "student"}
    assert set(found) == {"teacher", "student.cold-start"}
    return found


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_of_the_whole_chain_leaves_every_file_of_the_layout(trained: Trained) -> None:
    assert trained.result.returncode == 0, trained.result.stderr
    run = trained.folder / "out" / "student"
    names = "recipe.yaml recipe.resolved.json lock.json plan.json ds_config.json env.json ledger.json metrics.jsonl "
    names += "tokenizer/tokenizer.json final/config.json final/model.safetensors final/tokenizer.json final/README.md "
    names += "evaluation/teacher.json evaluation/before.json evaluation/after.json evaluation/ledger.json report.html"
    missing = [name for name in names.split() if not (run / name).is_file()]
    assert not missing
    environment = read(run / "env.json")
    assert (environment["seed"], environment["deterministic"]) == (0, False)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-1", "step-2"}
    assert not [path for path in run.rglob("*") if path.name.endswith(".partial")]
    assert (run / "recipe.yaml").read_bytes() == trained.recipe.read_bytes()
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_the_table_and_the_place_of_the_report_are_the_output(trained: Trained) -> None:
    text = trained.result.stdout
    for word in (
        "teacher",
        "before",
        "after",
        "where",
        f"report: {trained.folder / 'out' / 'student' / 'report.html'}",
    ):
        assert word in text
    assert "Traceback" not in trained.result.stderr


def test_every_model_is_scored_on_every_task_and_language(trained: Trained) -> None:
    for who in ("teacher", "before", "after"):
        scores = read(trained.folder / "out" / "student" / "evaluation" / f"{who}.json")
        assert set(scores["tasks"]["where"]["languages"]) == {"en", "id", "th"}, who
        assert set(scores["bits_per_byte"]) == {"en", "id", "th"}, who


def test_all_three_signals_are_logged(trained: Trained) -> None:
    lines = (trained.folder / "out" / "student" / "metrics.jsonl").read_text().splitlines()
    assert set(json.loads(lines[-1])["signals"]) == {"sequence", "off_policy", "on_policy"}


def test_the_final_model_answers_through_transformers_alone(trained: Trained) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    final = trained.folder / "out" / "student" / "final"
    tokenizer = AutoTokenizer.from_pretrained(final)
    model = AutoModelForCausalLM.from_pretrained(final)
    turns = [{"role": "user", "content": ROWS[0]["prompt"]}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > prompt["input_ids"].shape[1]
    assert tokenizer.decode(prompt["input_ids"][0]).endswith("<|im_start|>assistant\n")


def test_the_lock_that_is_written_is_that_of_the_recipe(trained: Trained) -> None:
    from dudi_kit.plan.chain import build_chain
    from dudi_kit.recipe.load import load_recipe

    out = trained.folder / "out"
    stage = build_chain(load_recipe(trained.recipe).recipe, trained.recipe, out)
    for needed in stage.in_order():
        lock = read(needed.run.lock)
        assert lock["hash"] == needed.lock == read(needed.run.plan)["lock"]
        assert lock["packages"]["torch"]
        assert lock["settings"] == needed.depends_on["settings"]
    assert dependencies(out)["teacher"].name == f"teacher-{stage.teacher.lock[:8]}"  # type: ignore[union-attr]


def test_nothing_is_written_outside_the_output_folder(trained: Trained) -> None:
    after = {name: data for name, data in listing(trained.folder).items() if not name.startswith("out/")}
    assert after == trained.before


def test_a_second_run_trains_nothing_and_says_what_it_reused(trained: Trained, tmp_path: Path) -> None:
    recipe = trained.copy(tmp_path)
    weights = {name: data for name, data in listing(tmp_path / "out").items() if "final/model" in name}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dudi_kit.pipeline.stations.start_training", lambda *_, **__: pytest.fail("trained again"))
        result = dudi("run", recipe)
    assert result.exit_code == 0, result.stderr
    assert "student: trained already, reused from " in result.stderr
    assert weights.items() <= listing(tmp_path / "out").items()
    assert len(weights) == 3


def test_plan_says_what_would_be_reused(trained: Trained, tmp_path: Path) -> None:
    result = dudi("plan", trained.copy(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("trained already, would be reused") == 3


def test_another_setting_under_the_same_name_is_refused_with_both_locks_and_the_ways_out(
    trained: Trained, tmp_path: Path
) -> None:
    recipe = trained.copy(tmp_path)
    run = tmp_path / "out" / "student"
    before = listing(run)
    result = dudi("run", recipe, "--training.seed=1")
    assert result.exit_code == 1
    assert f"lock {read(run / 'lock.json')['hash'][:8]}, this recipe has " in result.stderr
    assert "--name=" in result.stderr
    assert "--overwrite" in result.stderr
    assert listing(run) == before
    for command in ("evaluate", "report"):
        refused = dudi(command, recipe, "--training.seed=1")
        assert refused.exit_code == 1
        assert "was trained with other settings or other data (lock " in refused.stderr
    assert listing(run) == before


def test_a_folder_that_is_no_run_is_left_alone(trained: Trained, tmp_path: Path) -> None:
    recipe = trained.copy(tmp_path)
    mine = tmp_path / "out" / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    for options in ((), ("--overwrite",), ("--resume",)):
        result = dudi("run", recipe, "--name=mine", *options)
        assert result.exit_code == 1
        assert "is no run directory of dudi-kit and is not empty" in result.stderr
    assert listing(mine) == {"thesis.tex": b"x"}


def unfinished(recipe: Path) -> Path:
    """The run as a kill after its last checkpoint leaves it."""
    run = recipe.parent.parent / "out" / "student"
    shutil.rmtree(run / "final")
    return run


def test_an_unfinished_run_is_not_gone_on_with_unasked(trained: Trained, tmp_path: Path) -> None:
    recipe = trained.copy(tmp_path)
    run = unfinished(recipe)
    result = dudi("run", recipe)
    assert result.exit_code == 1
    assert (
        "holds an unfinished run of this recipe: go on with --resume, or start again with --overwrite" in result.stderr
    )
    assert (run / "checkpoints" / "step-2").is_dir()
    assert not (run / "final").exists()


def test_before_training_evaluate_and_report_say_what_to_call(tmp_path: Path) -> None:
    recipe = write_chain(tmp_path / "recipes", **WHOLE)
    for command in ("evaluate", "report"):
        result = dudi(command, recipe)
        assert result.exit_code == 1
        assert "holds no trained student yet: call `dudi-kit train` or `dudi-kit run` first" in result.stderr
    assert not (tmp_path / "out").exists()


# What was only planned


def test_a_plan_is_replaced_by_that_of_a_changed_recipe_since_nothing_was_trained(tmp_path: Path) -> None:
    recipe = write_chain(tmp_path / "recipes")
    assert dudi("plan", recipe).exit_code == 0
    result = dudi("plan", recipe, "--training.seed=1")
    assert result.exit_code == 0, result.stderr
    assert read(tmp_path / "out" / "student" / "recipe.resolved.json")["training"]["seed"] == 1


def test_a_lock_that_can_not_be_read_is_never_taken_for_a_plan(tmp_path: Path) -> None:
    recipe = write_chain(tmp_path / "recipes")
    other = tmp_path / "out" / "student"
    other.mkdir(parents=True)
    (other / "lock.json").write_text('{"packages": []}')
    result = dudi("plan", recipe)
    assert result.exit_code == 1
    assert "lock.json" in result.stderr
    assert listing(other) == {"lock.json": b'{"packages": []}'}


# What is built anew (the training itself is a stand-in here: it leaves the files and no weights)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that would have been trained, in order."""
    from dudi_kit.plan.layout import RunDir

    started: list[str] = []

    def leave_final(run: RunDir, processes: int, *, resume: bool, profile: bool) -> None:
        started.append(run.path.name + (" (resumed)" if resume else ""))
        run.final.mkdir()

    monkeypatch.setattr("dudi_kit.pipeline.stations.start_training", leave_final)
    return started


def test_stages_are_built_in_order_and_only_once(tmp_path: Path, quick: list[str]) -> None:
    recipe = write_chain(tmp_path / "recipes")
    assert dudi("train", recipe).exit_code == 0
    assert [name.rpartition("-")[0] or name for name in quick] == ["teacher", "student.cold-start", "student"]
    quick.clear()
    assert dudi("train", recipe).exit_code == 0
    assert quick == []


def test_an_edited_data_file_rebuilds_the_teacher_in_a_new_folder(tmp_path: Path, quick: list[str]) -> None:
    recipe = write_chain(tmp_path / "recipes", data__train__rows__path="mine.jsonl")
    write_rows(tmp_path / "recipes" / "mine.jsonl", ROWS)
    assert dudi("train", recipe).exit_code == 0
    old = set((tmp_path / "out").iterdir())
    quick.clear()
    write_rows(tmp_path / "recipes" / "rows.jsonl", ROWS[:-1])
    result = dudi("train", recipe, "--name=second")
    assert result.exit_code == 0, result.stderr
    new = {path.name.rpartition("-")[0] for path in set((tmp_path / "out").iterdir()) - old}
    assert "teacher" in new
    assert quick[0].startswith("teacher-")
    assert old <= set((tmp_path / "out").iterdir()), "the old teacher is still there"


def test_another_objective_under_another_name_reuses_the_teacher(tmp_path: Path, quick: list[str]) -> None:
    recipe = write_chain(tmp_path / "recipes")
    dudi("train", recipe)
    quick.clear()
    result = dudi("train", recipe, "--name=second", "--signals.on_policy.weight=0.1")
    assert result.exit_code == 0, result.stderr
    assert "teacher: trained already, reused from " in result.stderr
    assert quick[-1] == "second"
    assert not any(name.startswith("teacher") for name in quick)
    assert (tmp_path / "out" / "student" / "final").is_dir()


def test_overwrite_trains_the_recipe_itself_again_and_nothing_else(tmp_path: Path, quick: list[str]) -> None:
    recipe = write_chain(tmp_path / "recipes")
    dudi("train", recipe)
    quick.clear()
    (tmp_path / "out" / "student" / "report.html").write_text("of the old run")
    result = dudi("train", recipe, "--overwrite", "--training.seed=1")
    assert result.exit_code == 0, result.stderr
    assert quick[-1] == "student"
    assert not any(name.startswith("teacher") for name in quick)
    assert not (tmp_path / "out" / "student" / "report.html").exists()


def test_what_a_recipe_needs_goes_on_from_its_checkpoints_unasked(tmp_path: Path, quick: list[str]) -> None:
    recipe = write_chain(tmp_path / "recipes")
    dudi("train", recipe)
    quick.clear()
    teacher = dependencies(tmp_path / "out")["teacher"]
    shutil.rmtree(teacher / "final")
    (teacher / "checkpoints" / "step-1").mkdir(parents=True)
    assert dudi("train", recipe).exit_code == 0
    assert quick == [f"{teacher.name} (resumed)"]


def test_resume_goes_on_with_the_unfinished_run_and_overwrite_starts_again(
    trained: Trained, tmp_path: Path, quick: list[str]
) -> None:
    recipe = trained.copy(tmp_path)
    run = unfinished(recipe)
    assert dudi("train", recipe, "--resume").exit_code == 0
    unfinished(recipe)
    assert dudi("train", recipe, "--overwrite").exit_code == 0
    assert quick == ["student (resumed)", "student"]
    assert not (run / "checkpoints").exists(), "overwritten"


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(tmp_path: Path, quick: list[str]) -> None:
    recipe = write_chain(tmp_path / "recipes")
    dudi("train", recipe)
    run = tmp_path / "out" / "student"
    shutil.rmtree(run / "final")
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    quick.clear()
    assert dudi("train", recipe).exit_code == 0
    assert quick == ["student"]
    shutil.rmtree(run / "final")
    refused = dudi("train", recipe, "--training.seed=1")
    assert refused.exit_code == 1
    assert "holds a run of other settings" in refused.stderr


def test_a_fault_of_the_students_data_is_told_before_its_teacher_is_trained(tmp_path: Path, quick: list[str]) -> None:
    recipe = write_chain(tmp_path / "recipes", data__train__rows__path="typo.jsonl")
    result = dudi("run", recipe)
    assert result.exit_code == 1
    assert "typo.jsonl: no such file" in result.stderr
    assert quick == []


def test_a_folder_that_is_refused_is_told_before_anything_is_trained_or_written(
    tmp_path: Path, quick: list[str]
) -> None:
    recipe = write_chain(tmp_path / "recipes")
    mine = tmp_path / "out" / "student"
    mine.mkdir(parents=True)
    (mine / "thesis.tex").write_text("x")
    assert dudi("run", recipe).exit_code == 1
    assert quick == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["student"]


def test_after_a_mistake_is_mended_the_same_name_is_free(tmp_path: Path, quick: list[str]) -> None:
    recipe = write_chain(tmp_path / "recipes", data__max_length=24)
    assert dudi("run", recipe).exit_code == 1
    write_chain(tmp_path / "recipes")
    result = dudi("train", recipe)
    assert result.exit_code == 0, result.stderr
    assert quick[-1] == "student"


def test_without_a_teacher_and_tasks_a_run_says_what_is_not_scored(tmp_path: Path, quick: list[str]) -> None:
    recipe = write_chain(tmp_path / "recipes")
    write_recipe(recipe, changed(TEACHER, name="student"))
    result = dudi("run", recipe)
    assert result.exit_code == 0, result.stderr
    assert "nothing to evaluate: the recipe has neither evaluation.tasks nor data.held_out" in result.stderr


def test_the_output_folder_of_the_recipe_is_below_where_the_command_is_called(
    tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_chain(tmp_path / "recipes")
    write_recipe(recipe, changed(STUDENT, output={"folder": "runs"}))
    (tmp_path / "called").mkdir()
    monkeypatch.chdir(tmp_path / "called")
    assert call("train", recipe).exit_code == 0
    assert (tmp_path / "called" / "runs" / "student" / "final").is_dir()


def test_test_rows_among_the_training_rows_are_told(trained):
    found = json.loads((trained.folder / "out" / "student" / "evaluation" / "contamination.json").read_text("utf-8"))
    assert found["overlaps"]["where"]["id"]["contaminated"] == found["overlaps"]["where"]["id"]["items"] == 1
    assert found["findings"][0]["sources"]["training"]
    assert "stand in the training text" in " ".join(trained.result.stderr.split())


def test_test_rows_among_the_training_rows_may_stop_a_run_before_anything_is_trained(tmp_path):
    recipe = write_chain(tmp_path / "recipes", **WHOLE)
    result = dudi("run", recipe, "--fail-on-contamination")
    assert result.exit_code == 1
    assert "Take these rows out of the training data" in " ".join(result.stderr.split())
    assert not list((tmp_path / "out").rglob("final"))
