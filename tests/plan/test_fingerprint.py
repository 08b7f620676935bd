"""What changes the lock, and what must not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dudi_kit.plan import fingerprint
from dudi_kit.plan.chain import build_chain
from dudi_kit.plan.fingerprint import digest, file_hash, folder_hash, parts
from dudi_kit.recipe.load import load_recipe
from tests.small import ROWS, STUDENT, changed, write_recipe, write_rows

BASE = changed(
    STUDENT,
    teacher={"model": "./models/teacher"},
    student={"model": "./models/student"},
    data__held_out={"rows": {"path": "held.jsonl", "language": "id"}},
    verbalizer__demonstration={"template": "mine.jinja"},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "a"
    for model in ("teacher", "student"):
        (made / "models" / model).mkdir(parents=True)
        (made / "models" / model / "model.safetensors").write_bytes(model.encode())
    write_rows(made / "rows.jsonl", ROWS)
    write_rows(made / "held.jsonl", ROWS[:1])
    (made / "mine.jinja").write_text("{{ prompt }}")
    return made


def lock(folder: Path, recipe: dict[str, Any] = BASE) -> str:
    file = write_recipe(folder / "recipe.yaml", recipe)
    return digest(parts(load_recipe(file).recipe, {}))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"description": "in other words"},
        {"output": {"folder": "elsewhere"}},
        {"evaluation": {"tasks": {"t": {"data": {"builtin": "test"}}}, "batch_size": 3}},
        {"data__held_out": {"rows": {"builtin": "test"}}},
        {"evaluation": {"during_training": {"every": 5, "limit": 3}}},
        {"training__checkpoint_every": 1},
        {"training__keep_checkpoints": 9},
        {"training__log_every": 7},
        {"training__micro_batch_size": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_does_not_change_what_is_learned_does_not_change_the_lock(folder: Path, change: dict[str, Any]) -> None:
    assert lock(folder, changed(BASE, **change)) == lock(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"training__seed": 1},
        {"training__steps": 3},
        {"training__learning_rate": 2e-3},
        {"training__batch_size": 8},
        {"training__precision": "bf16"},
        {"deepspeed": {"stage": 1}},
        {"signals__on_policy": {"weight": 0.4}},
        {"signals__off_policy": {"divergence": {"type": "forward_kl"}}},
        {"rollouts__max_new_tokens": 9},
        {"verbalizer__demonstration": {"source": "pool"}},
        {"verbalizer__demonstration": None},
        {"data__max_length": 128},
        {"data__language_temperature": 2.0},
        {"teacher__dtype": "fp32"},
    ],
    ids=str,
)
def test_what_is_learned_from_changes_the_lock(folder: Path, change: dict[str, Any]) -> None:
    assert lock(folder, changed(BASE, **change)) != lock(folder)


@pytest.mark.parametrize(
    "file", ["rows.jsonl", "mine.jinja", "models/teacher/model.safetensors", "models/student/new.json"]
)
def test_another_content_of_a_file_changes_the_lock(folder: Path, file: str) -> None:
    before = lock(folder)
    with (folder / file).open("a") as opened:
        opened.write("\n")
    assert lock(folder) != before


def test_held_out_rows_and_files_that_the_recipe_does_not_name_leave_the_lock(folder: Path) -> None:
    before = lock(folder)
    write_rows(folder / "held.jsonl", ROWS[:2])
    (folder / "notes.txt").write_text("x")
    assert lock(folder) == before


BEST = changed(BASE, evaluation={"during_training": {"every": 5, "final": "best"}})


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"evaluation": {"during_training": {"every": 6, "final": "best"}}}, True),
        ({"evaluation": {"during_training": {"every": 5, "limit": 9, "final": "best"}}}, True),
        ({"evaluation": {"during_training": {"every": 5, "final": "best"}, "seed": 1}}, True),
        ({"evaluation": {"during_training": {"every": 5, "final": "best"}, "batch_size": 3}}, False),
    ],
    ids=str,
)
def test_what_picks_the_final_model_counts_where_that_is_not_the_last_step(
    folder: Path, change: dict[str, Any], counts: bool
) -> None:
    assert lock(folder, BEST) != lock(folder)
    assert (lock(folder, changed(BASE, **change)) != lock(folder, BEST)) == counts


def test_the_rows_that_pick_the_final_model_count(folder: Path) -> None:
    before = lock(folder, BEST)
    write_rows(folder / "held.jsonl", ROWS[:2])
    assert lock(folder, BEST) != before


def test_a_moved_folder_keeps_its_lock(folder: Path, tmp_path: Path) -> None:
    before = lock(folder)
    shutil.move(folder, tmp_path / "moved")
    assert lock(tmp_path / "moved") == before


def test_a_renamed_file_of_the_same_content_keeps_the_lock(folder: Path) -> None:
    before = lock(folder)
    (folder / "rows.jsonl").rename(folder / "other.jsonl")
    dataset = {"path": "other.jsonl", "language": {"column": "language"}, "english": {}}
    assert lock(folder, changed(BASE, data__train={"rows": dataset})) == before


def test_every_file_that_language_stands_for_counts(folder: Path) -> None:
    for code in ("id", "th", "vi"):
        write_rows(folder / f"{code}.jsonl", ROWS[:1])
    recipe = changed(BASE, data__train={"rows": {"path": "{language}.jsonl", "languages": ["id", "th"], "english": {}}})
    before = lock(folder, recipe)
    write_rows(folder / "vi.jsonl", ROWS[:2])
    assert lock(folder, recipe) == before
    write_rows(folder / "th.jsonl", ROWS[:2])
    assert lock(folder, recipe) != before


def test_a_text_that_begins_with_a_slash_is_no_path(folder: Path) -> None:
    def with_prompt(prompt: str) -> dict[str, Any]:
        form = {"type": "template", "prompt": prompt, "response": "{{ response }}"}
        dataset = {"path": "rows.jsonl", "language": {"column": "language"}, "format": form, "english": {}}
        return changed(BASE, data__train={"rows": dataset})

    assert lock(folder, with_prompt("/no_think {{ prompt }}")) != lock(folder, with_prompt("/think {{ prompt }}"))


@pytest.mark.parametrize(
    ("file", "counts"), [("corpus/th.yaml", True), ("builtin.py", True), ("corpus/README.md", False)]
)
def test_what_the_built_in_rows_are_made_of_counts_for_recipes_that_read_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, counts: bool
) -> None:
    reading = changed(BASE, data__train={"rows": {"builtin": "train"}})
    before, other = lock(folder, reading), lock(folder)
    room = Path(shutil.copytree(fingerprint.DATA_ROOM, tmp_path / "data"))
    monkeypatch.setattr(fingerprint, "DATA_ROOM", room)
    assert lock(folder, reading) == before, "a copy is as good"
    (room / file).write_text((room / file).read_text(encoding="utf-8") + "\n# corrected\n", encoding="utf-8")
    assert (lock(folder, reading) != before) is counts
    assert lock(folder) == other, "other recipes do not read it"


def test_the_stages_that_come_first_count(folder: Path) -> None:
    recipe = load_recipe(write_recipe(folder / "recipe.yaml", BASE)).recipe
    assert digest(parts(recipe, {"teacher": "1"})) != digest(parts(recipe, {"teacher": "2"}))
    assert digest(parts(recipe, {"a": "1", "b": "2"})) == digest(parts(recipe, {"b": "2", "a": "1"}))


def test_the_shipped_words_around_demonstrations_count_where_they_are_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "verbalizer"
    shutil.copytree(fingerprint.VERBALIZER_ROOM, room)
    monkeypatch.setattr(fingerprint, "VERBALIZER_ROOM", room)
    demonstration = "verbalizer__demonstration"
    recipes = {
        "shipped": changed(BASE, **{demonstration: {}}),
        "thai of its own": changed(BASE, **{demonstration: {"template": {"th": "mine.jinja"}}}),
        "its own": BASE,
        "none": changed(BASE, **{demonstration: {"source": "none"}}),
        "not read": changed(BASE, **{demonstration: {}, "signals__on_policy": {"weight": 0}}),
        "asked": changed(BASE, **{demonstration: {"source": "teacher", "template": "mine.jinja"}}),
    }

    def changed_by(file: Path) -> set[str]:
        before = {name: lock(folder, recipe) for name, recipe in recipes.items()}
        file.write_text(file.read_text(encoding="utf-8") + " ", encoding="utf-8")
        return {name for name, recipe in recipes.items() if lock(folder, recipe) != before[name]}

    assert changed_by(room / "templates" / "th.jinja") == {"shipped"}
    assert changed_by(room / "templates" / "my.jinja") == {"shipped", "thai of its own"}
    assert changed_by(room / "requests.yaml") == {"asked"}
    assert changed_by(room / "templates" / "README.md") == set()


def test_a_version_of_ours_changes_the_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = lock(folder)
    monkeypatch.setattr(fingerprint, "__version__", "99")
    assert lock(folder) != before


def test_the_lock_of_a_chain_is_the_digest_of_its_parts(folder: Path) -> None:
    file = write_recipe(folder / "recipe.yaml", BASE)
    stage = build_chain(load_recipe(file).recipe, file, folder / "out")
    assert stage.lock == digest(stage.depends_on) == lock(folder)


# Files


def big(path: Path, change: Callable[[bytearray], None] = lambda data: None) -> str:
    data = bytearray(4 << 20)
    change(data)
    path.write_bytes(data)
    return file_hash(path)


def test_large_files_are_told_apart_by_size_and_both_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE", 1 << 20)
    path = tmp_path / "weights"
    plain = big(path)
    assert big(path, lambda data: data.__setitem__(0, 1)) != plain
    assert big(path, lambda data: data.__setitem__(-1, 1)) != plain
    assert big(path, lambda data: data.append(0)) != plain
    assert big(path, lambda data: data.__setitem__(2 << 20, 1)) == plain, "the middle of a large file is not read"


def test_small_files_are_hashed_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    plain = big(path)
    assert big(path, lambda data: data.__setitem__(2 << 20, 1)) != plain


def test_a_folder_is_its_own_files_by_name_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "below").mkdir()
    before = folder_hash(tmp_path)
    (tmp_path / "below" / "x").write_text("checkpoints below a model folder are not the model")
    assert folder_hash(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert folder_hash(tmp_path) != before
