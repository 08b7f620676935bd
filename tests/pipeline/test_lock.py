"""The lock beside a recipe: what it holds, what it notices, and what `--frozen` refuses."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import fingerprint, load_tokenizer
from dudi_kit.errors import EnvironmentLack, LockMismatch
from dudi_kit.evaluate.task_rows import LanguageRows
from dudi_kit.pipeline.benchmarks import named_data
from dudi_kit.pipeline.lock import pins_of
from dudi_kit.plan import hub
from dudi_kit.plan.hub import Reference, of_tasks, pinned, references, resolve
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.lock import read, settings_of
from dudi_kit.plan.schema import read_plan
from dudi_kit.recipe.load import load_recipe
from tests.small import (
    ROWS,
    STUDENT,
    call,
    changed,
    tokenizer,
    write_chain,
    write_recipe,
    write_rows,
    write_shell,
)
from tests.standin_hub import HEAD, StandinHub

COMMIT, OTHER = "a" * 40, "b" * 40
MOVING = '{"lock": 1, "stages": {}, "hub": {"models": {"o/m": {"main": "main"}}, "datasets": {}}}'
"""A lock that holds no commit."""


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain with a template and its lock, written once."""
    folder = tmp_path_factory.mktemp("locked")
    file = write_chain(folder / "recipes", verbalizer__demonstration={"template": "mine.jinja"})
    (folder / "recipes" / "mine.jinja").write_text("{{ prompt }}")
    result = call("lock", file)
    assert result.exit_code == 0, result.output
    return folder / "recipes"


@pytest.fixture
def folder(locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may change, in another place."""
    shutil.copytree(locked, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "copy"


def lock_in(folder: Path) -> dict[str, Any]:
    return read(folder / "student.lock.json", folder / "student.yaml")


def test_the_lock_holds_every_file_as_sha256sum_prints_it(locked: Path) -> None:
    files = lock_in(locked)["files"]
    assert list(files) == ["mine.jinja", "rows.jsonl", "student.yaml", "teacher.yaml"]
    assert files["rows.jsonl"] == hashlib.sha256((locked / "rows.jsonl").read_bytes()).hexdigest()


def test_the_lock_names_versions_stages_and_how_each_model_reads(locked: Path, tmp_path: Path) -> None:
    lock = lock_in(locked)
    for package in ("transformers", "gguf", "sacrebleu"):  # trains, unpacks weights, scores
        assert lock["packages"][package] == metadata.version(package)
    assert (lock["recipe_version"], lock["python"]) == (1, f"{sys.version_info.major}.{sys.version_info.minor}")
    assert set(lock["shipped"]) >= {"code", "corpus", "data/templates/chatml.jinja", "verbalizer/templates/th.jinja"}
    assert list(lock["stages"]) == ["teacher", "start", "student"]
    assert call("plan", locked / "student.yaml", "-o", tmp_path).exit_code == 0
    run = RunDir(tmp_path / "student")
    student = lock["stages"]["student"]
    assert student["hash"] == read_plan(run).lock, "a reviewer finds the lock of a run directory in the recipe's lock"
    made = load_tokenizer(str(run.tokenizer))
    facts = student["tokenizers"]["student"]
    assert (facts["fingerprint"], facts["pieces"], facts["end_of_turn"]) == (fingerprint(made), len(made), "<|im_end|>")
    assert facts["chat_template"] == hashlib.sha256(made.chat_template.encode()).hexdigest()
    assert student["tokenizers"]["teacher"] == facts
    assert student["settings"]["verbalizer"]["demonstration"]["template"] == "mine.jinja"


def test_parents_of_a_teachers_recipe_are_locked_too(tmp_path: Path) -> None:
    file = write_chain(tmp_path)
    (tmp_path / "teacher.yaml").rename(tmp_path / "base.yaml")
    write_recipe(tmp_path / "teacher.yaml", {"extends": "base.yaml"})
    assert call("lock", file).exit_code == 0
    assert list(lock_in(tmp_path)["files"]) == ["base.yaml", "rows.jsonl", "student.yaml", "teacher.yaml"]


def test_a_lock_is_the_same_every_time_and_in_every_folder(folder: Path) -> None:
    before = (folder / "student.lock.json").read_bytes()
    result = call("lock", folder / "student.yaml")
    assert "no changes" in result.stdout
    assert (folder / "student.lock.json").read_bytes() == before
    assert call("lock", folder / "student.yaml", "--check").exit_code == 0


def test_a_new_lock_says_what_changed(folder: Path) -> None:
    result = call("lock", folder / "student.yaml", "--training.seed=3")
    assert result.stdout.count("training.seed: locked 0, found 3") == 2  # of the cold start, too
    assert "2 changes" in result.stdout


CHANGES: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "data": (lambda f: write_rows(f / "rows.jsonl", ROWS[:-1]), [], "files.rows.jsonl: locked "),
    "template": (lambda f: (f / "mine.jinja").write_text("{{ prompt }}!"), [], "files.mine.jinja: locked "),
    "comment": (lambda f: (f / "teacher.yaml").open("a").write("# x\n"), [], "files.teacher.yaml: locked "),
    "setting": (lambda f: None, ["--training.steps=3"], "stages.student.settings.training.steps: locked 2, found 3"),
    "evaluation": (lambda f: None, ["--evaluation.models=[after]"], "settings.evaluation.models: locked "),
    "missing": (lambda f: (f / "rows.jsonl").unlink(), [], "files.rows.jsonl: locked "),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_has_changed_is_named_and_refused(folder: Path, change: str) -> None:
    make, overrides, expected = CHANGES[change]
    make(folder)
    result = call("plan", folder / "student.yaml", "--frozen", "-o", "out", *overrides)
    assert result.exit_code == 1
    assert expected in result.stderr
    assert "dudi-kit lock student.yaml" in result.stderr
    assert not Path("out").exists(), "nothing is written"
    if change != "missing":
        check = call("lock", folder / "student.yaml", "--check", *overrides)
        assert (check.exit_code, expected in check.stderr) == (1, True)


def test_a_package_of_another_version_is_refused(folder: Path) -> None:
    file = folder / "student.lock.json"
    lock = json.loads(file.read_text())
    version = lock["packages"]["torch"]
    lock["packages"]["torch"] = "1.0"
    file.write_text(json.dumps(lock))
    result = call("plan", folder / "student.yaml", "--frozen", "-o", "out")
    assert result.exit_code == 1
    assert f"packages.torch: locked 1.0, found {version}" in result.stderr


def test_a_teacher_whose_weights_were_changed_after_training_is_not_reused_under_a_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave_a_model(run: RunDir, *_: Any, **__: Any) -> None:
        run.final.mkdir()
        (run.final / "model.safetensors").write_bytes(b"as trained")

    monkeypatch.setattr("dudi_kit.pipeline.stations.start_training", leave_a_model)
    assert call("train", folder / "student.yaml", "--frozen", "-o", "out").exit_code == 0
    assert call("plan", folder / "student.yaml", "--frozen", "-o", "out").exit_code == 0
    (teacher,) = Path("out").glob("teacher-*")
    (teacher / "final" / "model.safetensors").write_bytes(b"as changed")
    refused = call("plan", folder / "student.yaml", "--frozen", "-o", "out")
    assert refused.exit_code == 1
    assert "model.safetensors not as training left it. Remove" in " ".join(refused.stderr.split())
    assert call("plan", folder / "student.yaml", "-o", "out").exit_code == 0, "without --frozen nobody asks"


def test_what_matters_to_nobody_may_change_under_a_lock(folder: Path) -> None:
    free = ["--name=other", "--training.micro_batch_size=2", "--training.log_every=5", "--output.folder=out"]
    result = call("plan", folder / "student.yaml", "--frozen", *free)
    assert result.exit_code == 0, result.output
    assert RunDir(Path("out/other")).frozen.read_bytes() == (folder / "student.lock.json").read_bytes()


@pytest.mark.parametrize("broken", [None, "{", "[]", '{"lock": 99}', '{"lock": 1}', MOVING])
def test_without_a_lock_that_can_be_read_nothing_is_frozen(folder: Path, broken: str | None) -> None:
    file = folder / "student.lock.json"
    file.unlink() if broken is None else file.write_text(broken)
    result = call("run", folder / "student.yaml", "--frozen")
    assert result.exit_code == 1
    assert "make it with `dudi-kit lock" in result.stderr
    assert not Path("outputs").exists()


def test_another_lock_file_can_be_written_and_held_to(folder: Path) -> None:
    (folder / "student.lock.json").unlink()
    assert call("lock", folder / "student.yaml", "-o", "mine.json", "--training.seed=5").exit_code == 0
    args = ["plan", folder / "student.yaml", "-o", "out", "--lock", "mine.json"]
    assert call(*args).exit_code == 1
    assert call(*args, "--training.seed=5").exit_code == 0


# The hub


def test_every_hub_name_of_a_recipe_is_a_reference_and_can_be_pinned(tmp_path: Path) -> None:
    rows = {"hub": "o/rows", "revision": "v1", "language": "id"}
    recipe = changed(
        STUDENT,
        teacher={"model": "o/teacher", "tokenizer": "o/pieces"},
        student={"init": "scratch", "tokenizer": {"from": "o/other", "revision": "t"}},
        data__train={"a": rows, "b": {"builtin": "train"}},
        data__held_out={"a": {**rows, "revision": "v2"}},
        evaluation={"tasks": {"t": {"data": {**rows, "hub": "o/task"}}}},
    )
    loaded = load_recipe(write_recipe(tmp_path / "recipe.yaml", recipe)).recipe
    named = references(loaded)
    assert {str(reference) for reference in named} == {
        "o/teacher@main", "o/pieces@main", "o/other@t", "o/rows@v1", "o/rows@v2", "o/task@v1",
    }  # fmt: skip
    exact = pinned(loaded, dict.fromkeys(named, COMMIT))
    assert {reference.revision for reference in references(exact)} == {COMMIT}
    assert settings_of(exact)["teacher"]["tokenizer_revision"] == COMMIT
    assert pinned(loaded, {}) is loaded


def test_a_commit_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_ask", lambda reference: pytest.fail("the hub was asked"))
    reference = Reference("models", "o/m", COMMIT)
    assert resolve([reference]) == ({reference: COMMIT}, [])


def test_a_hub_that_nobody_answers_for_is_no_fault_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "HF_HUB_CACHE": str(tmp_path),
        "ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    with pytest.raises(EnvironmentLack, match="o/m@main: the hub can't be reached"):
        resolve([Reference("models", "o/m", "main")])


def test_offline_the_cache_tells_what_a_branch_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    reference = Reference("datasets", "o/rows", "main")
    with pytest.raises(EnvironmentLack, match="the hub can't be reached"):
        resolve([reference])
    ref = tmp_path / "datasets--o--rows" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text(OTHER)
    assert resolve([reference]) == ({reference: OTHER}, [reference])
    ref.write_text("no commit")
    with pytest.raises(EnvironmentLack):
        resolve([reference])


class Hub:
    """Stands in for the hub: one model, which moves from commit to commit."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commit, self.read_at = COMMIT, set[str | None]()
        model = write_shell(folder, tokenizer())
        monkeypatch.setattr(hub, "_ask", lambda reference: self.commit)

        def load(source: str, revision: str | None = None, gguf_file: str | None = None) -> Any:
            return load_tokenizer(there(source, revision))

        def config(source: str, revision: str | None = None, **options: Any) -> Any:
            return own(there(source, revision), **options)

        def there(source: str, revision: str | None) -> str:
            if source != "o/m":
                return source
            self.read_at.add(revision)
            return str(model)

        own = AutoConfig.from_pretrained
        monkeypatch.setattr("dudi_kit.plan.models.load_tokenizer", load)
        monkeypatch.setattr("dudi_kit.plan.models.AutoConfig.from_pretrained", config)


def test_a_frozen_run_reads_the_locked_commit_of_a_branch_that_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = Hub(tmp_path / "model", monkeypatch)
    both = {"teacher": {"model": "o/m", "revision": "main"}, "student": {"model": "o/m"}}
    file = write_chain(tmp_path / "recipes", **both)
    assert call("lock", file).exit_code == 0
    assert lock_in(tmp_path / "recipes")["hub"] == {"models": {"o/m": {"main": COMMIT}}, "datasets": {}}
    assert there.read_at == {COMMIT}, "what is looked at is what is locked"

    there.commit, there.read_at = OTHER, set()
    check = call("lock", file, "--check")
    assert check.exit_code == 1
    assert f"hub.models.o/m.main: locked {COMMIT[:12]}…, found {OTHER[:12]}…" in check.stderr
    assert "1 thing " in check.stderr

    there.read_at = set()
    assert call("plan", file, "--frozen", "-o", "out").exit_code == 0
    assert there.read_at == {COMMIT}
    planned = read_plan(RunDir(tmp_path / "out" / "student"))
    assert (planned.teacher.revision, planned.start.revision) == (COMMIT, COMMIT)  # type: ignore[union-attr]
    assert planned.lock == lock_in(tmp_path / "recipes")["stages"]["student"]["hash"]

    there.read_at = set()
    moved = call("plan", file, "--frozen", "-o", "out", "--teacher.revision=v2")
    assert moved.exit_code == 1
    assert "hub.models.o/m.v2: locked nothing, found named by the recipe" in moved.stderr
    assert there.read_at == set(), "nothing is fetched that is not locked"


def test_a_whole_chain_from_the_hub_is_locked_and_read_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of transformers and huggingface_hub is stood in for: a cache, whose branches move."""
    monkeypatch.chdir(tmp_path)
    there = StandinHub(tmp_path / "home")
    there.add_model("Qwen/Qwen2.5-0.5B")
    there.add_model("Qwen/Qwen2.5-3B-Instruct", COMMIT)
    there.add_dataset("o/rows", {"default": [{"prompt": "Di mana?", "response": "Di sini."}]})
    recipe = changed(
        STUDENT,
        teacher={"model": "Qwen/Qwen2.5-3B-Instruct", "revision": COMMIT},
        student={"model": "Qwen/Qwen2.5-0.5B", "chat_template": "chatml", "cold_start": {"steps": 1}},
        data__train={"rows": {"hub": "o/rows", "revision": "main", "language": "id"}},
    )
    file = write_recipe(tmp_path / "student.yaml", recipe)
    head = f"{HEAD:040x}"
    with there.in_use():
        result = call("lock", file)
        assert result.exit_code == 0, result.output
        assert f"Qwen/Qwen2.5-0.5B@main is taken as {head[:12]}, which the local cache holds" in result.stderr
        assert lock_in(tmp_path)["hub"] == {
            "models": {"Qwen/Qwen2.5-0.5B": {"main": head}, "Qwen/Qwen2.5-3B-Instruct": {COMMIT: COMMIT}},
            "datasets": {"o/rows": {"main": head}},
        }
        for repository in ("models--Qwen--Qwen2.5-0.5B", "datasets--o--rows"):
            (there.cache / repository / "refs" / "main").write_text(OTHER)
        assert call("plan", file, "-o", "out").exit_code != 0, "what main stands for now is not in the cache"
        result = call("plan", file, "--frozen", "-o", "out")
        assert result.exit_code == 0, result.output
        check = call("lock", file, "--check")
        assert check.exit_code != 0
    assert read_plan(RunDir(tmp_path / "out" / "student")).teacher.revision == COMMIT  # type: ignore[union-attr]


# Named tasks

TASK = """task: 1
name: mine
competency: understanding
description: Up or down.
licence: ours
metric: balanced_accuracy
fields: [text]
labels: {up: naik, down: turun}
shots: {instruct: 0, base: 0}
sources:
- {data: 'mine/{language}.jsonl', columns: {text: text, label: label}}
- {hub: o/mine, revision: main, subset: '{language}', split: train, columns: {text: text, label: label}}
languages:
  id: {question: '{text}', answer_tag: 'Jawaban:', format: '{answer_tag} {labels}'}
  ms: {question: '{text}', answer_tag: 'Jawapan:', format: '{answer_tag} {labels}'}
"""
SAID = [{"text": "Harga beras", "label": "up"}, {"text": "Hujan", "label": "down"}]


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, StandinHub]]:
    """A locked recipe whose task has local rows in Indonesian, and Malay ones on the hub."""
    monkeypatch.chdir(tmp_path)
    there = StandinHub(tmp_path / "cache")
    there.add_dataset("o/mine", {"ms": SAID})
    (tmp_path / "home" / "mine").mkdir(parents=True)
    write_rows(tmp_path / "home" / "mine" / "id.jsonl", SAID)
    (tmp_path / "mine.yaml").write_text(TASK, encoding="utf-8")
    tasks = {"data_home": "home", "tasks": {"asked": {"task": "mine.yaml"}}}
    file = write_chain(tmp_path, evaluation=tasks)
    with there.in_use():
        result = call("lock", file)
        assert result.exit_code == 0, result.output
        yield file, there


def read_as_locked(file: Path) -> dict[str, LanguageRows]:
    pin = pins_of(load_recipe(file), file.with_name("student.lock.json"))
    return dict(named_data(pin(load_recipe(file).recipe).evaluation, Ledger())["asked"].rows)


def test_what_named_tasks_read_is_locked_and_named_beside_their_scores(asking: tuple[Path, StandinHub]) -> None:
    file, there = asking
    lock, rows = lock_in(file.parent), file.parent / "home" / "mine" / "id.jsonl"
    sha = hashlib.sha256(rows.read_bytes()).hexdigest()
    assert lock["files"]["home/mine/id.jsonl"] == sha
    assert "mine.yaml" in lock["files"]
    assert lock["hub"]["datasets"] == {"o/mine": {"main": f"{HEAD:040x}"}}
    (there.cache / "datasets--o--mine" / "refs" / "main").write_text(OTHER)
    read_at = {code: rows.data for code, rows in read_as_locked(file).items()}
    assert read_at == {"id": {str(rows): f"sha256 {sha}"}, "ms": {"hub:o/mine/ms": f"commit {HEAD:040x}"}}
    check = call("lock", file, "--check")
    assert "hub.datasets.o/mine.main: locked" in check.stderr, "the branch has moved"


def test_rows_of_named_tasks_that_changed_are_refused_under_a_lock(asking: tuple[Path, StandinHub]) -> None:
    file, _ = asking
    write_rows(file.parent / "home" / "mine" / "id.jsonl", SAID[:1])
    result = call("evaluate", file, "--frozen")
    assert result.exit_code == 1
    assert "files.home/mine/id.jsonl: locked " in result.stderr
    write_rows(file.parent / "home" / "mine" / "id.jsonl", SAID)
    write_rows(file.parent / "home" / "mine" / "ms.jsonl", SAID)
    result = call("evaluate", file, "--frozen")
    assert "files.home/mine/ms.jsonl: locked nothing" in result.stderr, "it would be read in place of the hub's"


def test_without_a_lock_the_commit_of_a_branch_is_found_out_and_named(asking: tuple[Path, StandinHub]) -> None:
    file, _ = asking
    found = named_data(load_recipe(file).recipe.evaluation, Ledger())["asked"]
    assert found.rows["ms"].data == {"hub:o/mine/ms": f"commit {HEAD:040x}"}
    assert found.rows["ms"].source == f"hub:o/mine/ms@{HEAD:040x}"


def test_a_recipe_names_another_revision_of_a_tasks_rows(asking: tuple[Path, StandinHub]) -> None:
    file, _ = asking
    evaluation = load_recipe(file, [("evaluation.tasks.asked.revisions.o/mine", COMMIT)]).recipe.evaluation
    assert list(of_tasks(evaluation)) == [("asked", Reference("datasets", "o/mine", COMMIT))]


def test_a_task_whose_hub_nobody_answers_for_can_not_be_locked(
    asking: tuple[Path, StandinHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, there = asking
    shutil.rmtree(there.cache / "datasets--o--mine")
    result = call("lock", file)
    assert result.exit_code != 0
    assert "dataset o/mine@main: the hub can't be reached" in " ".join(result.stderr.split())
    found = named_data(load_recipe(file).recipe.evaluation, Ledger())["asked"]
    assert (list(found.rows), list(found.missing)) == (["id"], ["ms"]), "what is known from local files is scored"


def test_a_mismatch_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(LockMismatch, match="there is no lock"):
        read(tmp_path / "a.lock.json", tmp_path / "a.yaml")
