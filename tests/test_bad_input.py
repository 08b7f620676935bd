"""Bad input through the command line: a message that says what to do, its exit code, and nothing that looks finished.

Each test calls `dudi-kit run` or `train` as a user would. Where a mistake is told before training, no process is
started: the fixture `no_training` sees to that.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import Result

from dudi_kit.errors import Exit
from dudi_kit.plan.budget import TOKENIZER_BYTES
from tests.small import ROWS, TEACHER, call, changed, tokenizer, write_chain, write_recipe, write_rows, write_shell
from tests.verbalizer.vocabulary.tiny import wordpiece

STATIONS = "dudi_kit.pipeline.stations"


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STATIONS + ".start_training", lambda *_, **__: pytest.fail("training was started"))


def run(recipe: Path, *options: str) -> Result:
    return call("run", recipe, "--output", recipe.parent / "out", *options)


def refused(result: Result, recipe: Path, *words: str, code: Exit = Exit.INVALID) -> str:
    """The message, after making sure that the failure is a decent one."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert "bug of dudi-kit" not in result.output
    left = [path for path in recipe.parent.rglob("*") if path.name == "final" or path.name.endswith(".partial")]
    assert not left, "nothing may be taken for a finished run"
    message = result.stderr
    for word in words:
        assert word in message, f"{word!r} is missing in {message}"
    return message


def with_models(folder: Path, **changes: Any) -> Path:
    """A recipe over two model folders."""
    for name in ("teacher", "student"):
        write_shell(folder / "models" / name, tokenizer())
    models = {"teacher": {"model": "./models/teacher"}, "student": {"model": "./models/student"}}
    return write_chain(folder, **{**models, **changes})


# The recipe


def test_a_misspelt_key_is_told_with_its_place_and_the_right_spelling(tmp_path: Path, no_training: None) -> None:
    recipe = write_chain(tmp_path, training__learning_rat=1e-3)
    message = refused(run(recipe), recipe, "error[unknown-key] training.learning_rat: no such key", "'learning_rate'")
    assert message.startswith(f"{recipe}:")
    assert not (tmp_path / "out").exists()


def test_an_unknown_language_in_the_recipe_is_told_with_the_known_spelling(tmp_path: Path, no_training: None) -> None:
    recipe = write_chain(tmp_path, data__train__rows__language="tha")
    refused(run(recipe), recipe, "data.train.rows.language", "tha", "'th'")
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    recipe = tmp_path / "nowhere.yaml"
    refused(run(recipe), recipe, "nowhere.yaml", "no such file")


def test_a_batch_that_can_not_be_split_over_the_processes(tmp_path: Path, no_training: None) -> None:
    recipe = with_models(tmp_path, training__batch_size=4, training__micro_batch_size=2)
    (tmp_path / "rows.jsonl").unlink()  # it is told before any data is read
    words = ("training.batch_size: 4 rows can't be split into 3 processes × 2 rows", "nearest size that can is 6")
    refused(run(recipe, "--processes", "3"), recipe, *words)


def test_a_micro_batch_that_does_not_divide_the_batch_is_a_finding(tmp_path: Path, no_training: None) -> None:
    recipe = write_chain(tmp_path, training__micro_batch_size=3)
    refused(run(recipe), recipe, "error[not-divisible] training.micro_batch_size: batch_size 4 is not a multiple of 3")


# The data


def test_a_missing_data_file_is_named(tmp_path: Path, no_training: None) -> None:
    recipe = write_chain(tmp_path)
    (tmp_path / "rows.jsonl").unlink()
    words = (f"{tmp_path / 'rows.jsonl'}: no such file", "relative to the recipe")
    refused(run(recipe), recipe, *words)


@pytest.mark.parametrize("content", ["", "\n\n"], ids=["no byte", "empty lines"])
def test_an_empty_dataset_is_named(tmp_path: Path, no_training: None, content: str) -> None:
    recipe = write_chain(tmp_path)
    (tmp_path / "rows.jsonl").write_text(content)
    refused(run(recipe), recipe, "dataset rows: no rows left. 0 read from ", "rows.jsonl")


WITHOUT = {key: value for key, value in ROWS[0].items() if key != "response"}


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (WITHOUT, "no column 'response'; the row has 'prompt', 'language'"),
        (ROWS[0] | {"response": "  "}, "column 'response': expected a text, found an empty one"),
        (ROWS[0] | {"response": None}, "column 'response': expected a text, found null"),
    ],
    ids=["no column", "blank", "null"],
)
def test_a_row_without_a_response_is_named_with_file_row_and_column(
    tmp_path: Path, no_training: None, row: dict[str, Any], found: str
) -> None:
    recipe = write_chain(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [*ROWS[:3], row, *ROWS[3:]])
    refused(run(recipe), recipe, f"{tmp_path / 'rows.jsonl'}:4 (rows): ", found, "data.on_bad_row: skip")


def test_rows_that_are_skipped_are_counted_where_the_plan_is_shown_and_in_the_ledger(tmp_path: Path) -> None:
    recipe = with_models(tmp_path, data__on_bad_row="skip")
    write_rows(tmp_path / "rows.jsonl", [*ROWS, WITHOUT, ROWS[1] | {"response": ""}, {"prompt": "x"}])
    result = call("plan", recipe, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "bad row left out: missing column: 2 (? 1, id 1); first: " in result.stderr
    assert f"{tmp_path / 'rows.jsonl'}:13" in result.stderr
    assert "bad row left out: empty text: 1 (th 1); first: " in result.stderr
    ledger = (tmp_path / "out" / "student" / "ledger.json").read_text()
    assert '"bad row left out: missing column": {\n    "?": 1,\n    "id": 1\n  }' in ledger
    plan = (tmp_path / "out" / "student" / "plan.json").read_text()
    assert "bad row left out: missing column: 2" in plan


def test_an_unknown_language_in_a_column_is_named_with_its_row(tmp_path: Path, no_training: None) -> None:
    recipe = write_chain(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [*ROWS, ROWS[0] | {"language": "ind"}])
    words = (f"{tmp_path / 'rows.jsonl'}:13 (rows): column 'language': expected one of en id", "found 'ind'", "'id'")
    refused(run(recipe), recipe, *words)


def test_a_prompt_longer_than_max_length_is_named_with_the_length_that_would_do(
    tmp_path: Path, no_training: None
) -> None:
    recipe = with_models(tmp_path, data__max_length=64)
    write_rows(tmp_path / "rows.jsonl", [*ROWS, ROWS[0] | {"prompt": "kucing " * 100}])
    words = (
        f"{tmp_path / 'rows.jsonl'}:13 (rows): ",
        "its prompt alone leaves no room",
        "data.max_length: 64. Set it to ",
    )
    refused(run(recipe), recipe, *words, "data.on_too_long")


def test_a_prompt_longer_than_the_context_is_named_with_what_to_lower(tmp_path: Path, no_training: None) -> None:
    recipe = with_models(tmp_path, data__max_length=2_000)
    write_rows(tmp_path / "rows.jsonl", [*ROWS, ROWS[0] | {"prompt": "kucing " * 600}])
    words = ("student: its context is 512 tokens and ", "rows.jsonl:13 (rows) needs ", "data.on_too_long: skip")
    refused(run(recipe), recipe, *words)


def test_a_context_from_scratch_that_is_too_short_is_a_finding(tmp_path: Path, no_training: None) -> None:
    recipe = write_chain(tmp_path, data__max_length=600)
    refused(run(recipe), recipe, "error[too-long] student.architecture.context: rows may have 600 tokens")


# The models


def test_a_shared_vocabulary_of_different_tokenizers(tmp_path: Path, no_training: None) -> None:
    recipe = with_models(tmp_path, verbalizer__vocabulary__mapping="shared")
    write_shell(tmp_path / "models" / "teacher", tokenizer(["some other words than those of the rows"]))
    words = ("different tokenizers: piece ", "for the teacher", "to auto, remap or align")
    refused(run(recipe), recipe, "verbalizer.vocabulary.mapping: shared", *words)


def test_an_override_that_names_a_piece_which_no_tokenizer_has(tmp_path: Path, no_training: None) -> None:
    recipe = with_models(tmp_path, verbalizer__vocabulary={"mapping": "align", "overrides": "pieces.yaml"})
    refused(run(recipe), recipe, "error[missing-file] verbalizer.vocabulary.overrides: no such file")
    (tmp_path / "pieces.yaml").write_text('"a": "b"\n"Krung Thep": "กรุงเทพมหานคร"\n', encoding="utf-8")
    words = (
        "pieces.yaml:2:1: error[unknown-piece]: the teacher's tokenizer has no piece 'Krung Thep'",
        "pieces.yaml:2:15: error[unknown-piece]: the student's tokenizer has no piece 'กรุงเทพมหานคร'",
    )
    refused(run(recipe), recipe, *words)


def test_a_teacher_whose_tokenizer_loses_a_script_is_refused_with_the_number(tmp_path: Path, no_training: None) -> None:
    teacher = wordpiece(*{word for row in ROWS for word in row["response"].replace(".", " .").split()} - {"แมวอยู่ใต้โต๊ะ"})
    recipe = with_models(tmp_path, teacher__chat_template="plain")
    write_shell(tmp_path / "models" / "teacher", teacher)
    words = (
        "verbalizer.vocabulary.min_coverage (90%)",
        "response of which the teacher's tokenizer loses letters: 4 (th 4); first: ",
        "lower min_coverage, or set below: warn",
    )
    refused(run(recipe), recipe, *words)
    recipe = with_models(tmp_path, teacher__chat_template="plain", verbalizer__vocabulary__below="warn")
    write_shell(tmp_path / "models" / "teacher", teacher)
    told = call("plan", recipe, "--output", tmp_path / "out").output
    assert "response of which the teacher's tokenizer loses letters: 4 (th 4); first: " in " ".join(told.split())


def test_a_teacher_without_a_chat_template(tmp_path: Path, no_training: None) -> None:
    recipe = with_models(tmp_path)
    bare = tokenizer()
    bare.chat_template = None
    write_shell(tmp_path / "models" / "teacher", bare)
    (tmp_path / "models" / "teacher" / "chat_template.jinja").unlink(missing_ok=True)
    refused(run(recipe), recipe, "teacher: its tokenizer has no chat template. Set teacher.chat_template to chatml")


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_model_folder_that_is_not_there(tmp_path: Path, no_training: None, who: str) -> None:
    recipe = with_models(tmp_path)
    shutil.rmtree(tmp_path / "models" / who)
    words = (f"no such folder: {tmp_path / 'models' / who}", "relative to the recipe")
    refused(run(recipe), recipe, *words)


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_model_without_a_chat_template_names_the_key_and_its_choices(
    tmp_path: Path, no_training: None, who: str
) -> None:
    recipe = with_models(tmp_path)
    made = tokenizer()
    made.chat_template = None
    shutil.rmtree(tmp_path / "models" / who)
    write_shell(tmp_path / "models" / who, made)
    words = (f"{who}: its tokenizer has no chat template", f"Set {who}.chat_template to chatml, plain", "Jinja file")
    refused(run(recipe), recipe, *words)
    settled = call("plan", recipe, "--output", tmp_path / "out", f"--{who}.chat_template=chatml")
    assert settled.exit_code == 0, settled.output


class Bomb:
    """A pickle that leaves a file where it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_pickled_weights_are_refused_unopened(tmp_path: Path, no_training: None, who: str) -> None:
    recipe = with_models(tmp_path)
    folder, harm = tmp_path / "models" / who, tmp_path / "harm"
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(harm), folder / "pytorch_model.bin")
    words = (f"{who}.model: {folder} has no .safetensors file", "pytorch_model.bin", "pickled", "safe_serialization")
    refused(run(recipe), recipe, *words)
    assert not harm.exists()


def test_a_folder_without_weights_is_refused(tmp_path: Path, no_training: None) -> None:
    recipe = with_models(tmp_path)
    (tmp_path / "models" / "student" / "model.safetensors").unlink()
    refused(run(recipe), recipe, "student.model: ", "has no .safetensors file: there are no weights")


def test_a_folder_of_gguf_files_without_the_name_of_one(tmp_path: Path, no_training: None) -> None:
    recipe = with_models(tmp_path)
    folder = tmp_path / "models" / "student"
    (folder / "model.safetensors").rename(folder / "tiny-q8.gguf")
    refused(run(recipe), recipe, "student.model: ", "tiny-q8.gguf: name one in student.gguf_file")


def test_a_folder_that_holds_no_model_at_all(tmp_path: Path, no_training: None) -> None:
    recipe = with_models(tmp_path)
    folder = tmp_path / "models" / "student"
    shutil.rmtree(folder)
    folder.mkdir()
    refused(run(recipe), recipe, "student", str(folder))


def test_code_in_a_model_folder_is_not_run(tmp_path: Path, no_training: None) -> None:
    recipe = with_models(tmp_path)
    folder, harm = tmp_path / "models" / "student", tmp_path / "harm"
    (folder / "evil.py").write_text(f"open({str(harm)!r}, 'w')\nclass Config: ...\n")
    (folder / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}')
    refused(run(recipe), recipe, "student", str(folder))
    assert not harm.exists()


# The machine


def test_no_space_for_the_checkpoints_is_told_before_training_with_both_numbers(
    tmp_path: Path, no_training: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_chain(tmp_path, training__checkpoint_every=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=0, used=0, free=1_000))
    words = ("no space for checkpoints and final model", "0.00 GB free", "GB are needed", "training.keep_checkpoints")
    refused(run(recipe), recipe, *words, code=Exit.ENVIRONMENT)


def test_the_space_asked_for_is_that_of_the_whole_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8,816 parameters: all three leave a model, cold start and student 3 checkpoints each as well, and the teacher one
    if it is stopped; a tokenizer lies in each run, in each checkpoint and with each model."""
    asked: list[int] = []
    monkeypatch.setattr(STATIONS + ".require_space", lambda folder, needed, purpose: asked.append(needed))
    monkeypatch.setattr(STATIONS + ".start_training", lambda run, *_, **__: run.final.mkdir())
    recipe = write_chain(tmp_path, training__checkpoint_every=1)
    assert call("train", recipe, "--output", tmp_path / "out").exit_code == 0
    assert asked == [8_816 * (3 * 4 + (2 * 3 + 1) * 12) + (3 * 2 + 2 * 3 + 1) * TOKENIZER_BYTES]


def test_a_fault_of_the_teachers_recipe_names_its_file(tmp_path: Path, no_training: None) -> None:
    """The override is the student's own; the teacher's batch stays what its file says."""
    recipe = write_chain(tmp_path)
    words = (f"teacher ({tmp_path / 'teacher.yaml'}): training.batch_size", "can't be split into 3 processes")
    refused(
        call("train", recipe, "--output", tmp_path / "out", "--processes", 3, "--training.batch_size=6"), recipe, *words
    )


def test_an_output_folder_that_can_not_be_written(tmp_path: Path, no_training: None) -> None:
    recipe = write_chain(tmp_path)
    (tmp_path / "out").write_text("a file is in the way")
    refused(run(recipe), recipe, "can't write ", str(tmp_path / "out"), code=Exit.ENVIRONMENT)
    assert (tmp_path / "out").read_text() == "a file is in the way"


def stand_in(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Another program in the place of the training process; `run` is its run directory."""

    def command(run_dir: str, **_: bool) -> Sequence[str]:
        return ["-c", f"import os, pathlib, signal, sys\nrun = pathlib.Path({run_dir!r})\n{script}"]

    monkeypatch.setattr("dudi_kit.train.launch.worker_command", command)


def test_a_training_process_that_is_killed_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_chain(tmp_path)
    half = "(run / '.final.partial').mkdir(); (run / '.final.partial' / 'model.safetensors').touch()\n"
    stand_in(monkeypatch, f"{half}os.kill(os.getpid(), signal.SIGKILL)")
    result = run(recipe)
    (tmp_path / "out").rename(tmp_path / "left")  # the half-written folder under its hidden name is expected
    left = list((tmp_path / "left").glob("*/.final.partial"))
    assert len(left) == 1
    assert left[0].parent.name.startswith("teacher-"), "the teacher fell, and nothing after it was started"
    shutil.rmtree(left[0])
    words = (
        "rank 0 was killed by SIGKILL",
        "Out of memory",
        "training.micro_batch_size",
        "there is no checkpoint yet: start again",
        str(tmp_path / "out"),
    )
    refused(result, recipe, *words, code=Exit.ENVIRONMENT)
    assert not list((tmp_path / "left").glob("*/report.html"))


def test_a_training_process_that_ends_without_a_word_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_chain(tmp_path)
    stand_in(monkeypatch, "sys.exit(7)")
    refused(run(recipe), recipe, "ended with exit code 7", code=Exit.ENVIRONMENT)


def test_a_training_process_that_claims_success_and_leaves_nothing_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_chain(tmp_path)
    stand_in(monkeypatch, "sys.exit(0)")
    result = run(recipe)
    refused(result, recipe, "ended without an error and left no final model", code=Exit.ENVIRONMENT)


def test_the_same_call_after_a_failure_builds_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_recipe(tmp_path / "alone.yaml", changed(TEACHER, name="alone"))
    write_rows(tmp_path / "rows.jsonl", ROWS)
    with monkeypatch.context() as patch:
        stand_in(patch, "os.kill(os.getpid(), signal.SIGKILL)")
        assert run(recipe).exit_code == Exit.ENVIRONMENT
    stand_in(monkeypatch, "(run / 'final').mkdir()")
    result = run(recipe)
    assert result.exit_code == 0, result.output
