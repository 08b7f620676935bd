"""`dudi-kit init`: whatever is wished, the recipe that it writes is valid; nothing is overwritten unasked."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from dudi_kit.cli import app
from dudi_kit.recipe.draft import machine, training_settings
from dudi_kit.recipe.load import LoadedRecipe, check_recipe, load_recipe
from tests.small import call

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROW = {"instruction": "a", "output": "b", "lang": "th", "en_prompt": "c", "en_response": "d"}

TEACHERS = ["Qwen/Qwen2.5-3B-Instruct", f"owner/teacher@{COMMIT}", "models/t", "teacher.yaml"]
STUDENTS = ["Qwen/Qwen2.5-0.5B", "scratch", "./models/s"]
DATA = ["builtin", f"hub:owner/rows@{COMMIT}", "hub:owner/rows", "all.jsonl", "{language}.csv", "chat.jsonl"]
LANGUAGES = ["th", "id,vi, ta"]
HARDWARE = ["cpu-24G", "8xH100-80G", "1xA10-24G", "3x3090", "a machine: #1 {x}"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("models/t", "models/s", "sub"):
        Path(folder).mkdir(parents=True)
    Path("all.jsonl").write_text(json.dumps(ROW) + "\n")
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "language": "th"}
    Path("chat.jsonl").write_text(json.dumps(chat) + "\n")
    for code in ("th", "id", "vi", "ta"):
        Path(f"{code}.csv").write_text("question,answer\na,b\n")
    Path("teacher.yaml").write_text("name: t\n")
    return tmp_path


def init(*arguments: str) -> Result:
    return call("init", *arguments)


def made(*arguments: str, at: str = "recipe.yaml") -> LoadedRecipe:
    result = init("-o", at, *arguments)
    assert result.exit_code == 0, result.output
    return load_recipe(at)


def test_every_combination_of_a_grid_is_valid(here: Path) -> None:
    Path("schemas").mkdir()
    Path("schemas/recipe.v1.schema.json").touch()  # or it would be written 72 times
    for number, (teacher, student, data) in enumerate(itertools.product(TEACHERS, STUDENTS, DATA)):
        languages, hardware = LANGUAGES[number // 6 % 2], HARDWARE[number % 5]
        flags = ["--teacher", teacher, "--student", student, "--languages", languages, "--data", data]
        result = init(*flags, "--hardware", hardware, "-o", f"sub/{number}.yaml")
        assert result.exit_code == 0, (flags, result.output)
        checked = check_recipe(f"sub/{number}.yaml")
        assert {finding.code for finding in checked.findings} <= {"unpinned"}, flags
        assert checked.loaded is not None
        training = checked.loaded.recipe.training
        devices = machine(hardware).devices
        assert training.micro_batch_size
        assert training.batch_size % (devices * training.micro_batch_size) == 0


def test_flags_are_written_down(here: Path) -> None:
    recipe = made(
        *("--teacher", f"owner/t@{COMMIT}", "--student", "models/s", "--languages", "th,th lo", "--data", "all.jsonl"),
        *("--hardware", "8xH100-80G", "--name", "mine"),
        at="sub/x.yaml",
    ).recipe
    assert (recipe.name, recipe.deepspeed.stage, recipe.training.precision) == ("mine", 2, "bf16")
    assert recipe.teacher is not None
    assert recipe.teacher.model_dump()["revision"] == COMMIT
    assert recipe.student.model_dump()["model"] == str(here / "models/s"), "relative to the recipe, wherever that is"
    rows = recipe.data.train["mine"].model_dump()
    assert (rows["path"], rows["languages"], rows["language"]) == (
        str(here / "all.jsonl"),
        ["th", "lo"],
        {"column": "lang"},
    )
    assert (rows["format"]["prompt"], rows["english"]["format"]["prompt"]) == ("instruction", "en_prompt")


def test_editors_and_readers_are_thought_of(here: Path) -> None:
    result = init("--yes")
    assert result.exit_code == 0, result.output
    text = Path("recipe.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=recipe.v1.schema.json\n")
    assert json.loads(Path("recipe.v1.schema.json").read_text())["title"].startswith("dudi-kit recipe")
    assert "huggingface.co/Qwen/Qwen2.5-3B-Instruct/commits/main" in text
    assert max(map(len, text.splitlines())) <= 130
    assert "dudi-kit run recipe.yaml" in result.stderr
    Path("schemas").mkdir()
    Path("schemas/recipe.v1.schema.json").write_text("{}")
    assert init("--yes", "-o", "sub/x.yaml").exit_code == 0
    assert (
        Path("sub/x.yaml").read_text().startswith("# yaml-language-server: $schema=../schemas/recipe.v1.schema.json\n")
    )
    assert not Path("sub/recipe.v1.schema.json").exists()


def test_nothing_is_overwritten_without_force(here: Path) -> None:
    Path("recipe.yaml").write_text("mine")
    Path("link.yaml").symlink_to("nowhere.yaml")
    for name in ("recipe.yaml", "link.yaml"):
        result = init("--yes", "-o", name)
        assert (result.exit_code, "--force" in result.stderr) == (2, True)
    assert Path("recipe.yaml").read_text() == "mine"
    assert init("--yes", "--force").exit_code == 0
    assert load_recipe("recipe.yaml").recipe.name == "qwen2.5-0.5b-from-qwen2.5-3b-instruct"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--languages", "tha"], "did you mean th?"),
        (["--languages", "thia"], "did you mean th?"),
        (["--languages", "Indonesian"], "did you mean id?"),
        (["--languages", "xx"], "known: en id"),
        (["--languages", ","], "name at least one"),
        (["--languages", "th,km"], "built-in corpus has no km"),
        (["--data", "none.jsonl"], "no such file"),
        (["--data", "rows.json"], "can't read files of type"),
        (["--data", "odd.csv"], "'a', 'b'"),
        (["--data", "th.csv"], "has no column 'language'"),
        (["--data", "hub:../x"], "no dataset of the hub"),
        (["--teacher", "none here"], "neither owner/name"),
        (["--teacher", "./none"], "no such file or folder"),
        (["--student", "owner/name@"], "neither owner/name"),
        (["--hardware", " "], "8xH100-80G"),
        (["--hardware", "a\nb: c"], "8xH100-80G"),
        (["--name", "../x"], "letters, digits"),
        (["-o", "x.txt"], "ends in .yaml"),
        (["-o", "none/x.yaml"], "no such folder"),
    ],
)
def test_what_can_not_be_is_told_and_nothing_is_written(here: Path, flags: list[str], words: str) -> None:
    Path("odd.csv").write_text("a,b\n1,2\n")
    before = set(here.rglob("*"))
    result = init("--yes", *flags)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert set(here.rglob("*")) == before


def test_without_a_terminal_what_is_missing_is_named(here: Path) -> None:
    result = init("--teacher", "owner/t")
    assert result.exit_code == 2
    assert "--student" in result.stderr
    assert not Path("recipe.yaml").exists()


def test_questions_are_asked_again_until_they_can_be_answered(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dudi_kit.cli.start.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    answers = ["owner/t", "scratch", "tha", "th", "", "cpu-8G", ""]
    result = CliRunner().invoke(app, ["init"], input="\n".join([*answers, ""]))
    assert result.exit_code == 0, result.output
    assert "did you mean th?" in result.stderr
    recipe = load_recipe("recipe.yaml").recipe
    assert recipe.name == "scratch-from-t"
    assert (recipe.student.init, recipe.training.precision) == ("scratch", "fp32")
    assert recipe.data.train["corpus"].languages == ["th"]


def test_names_of_hardware() -> None:
    assert machine("8xH100-80G") == ("8xH100-80G", 8, 80, False)
    assert machine("2 x A100 40GB")[1:] == (2, 40, False)
    assert machine("cpu-24G")[1:] == (1, 24, True)
    assert machine("RTX4090")[1:] == (1, None, False)
    assert training_settings(machine("8xH100-80G"), from_scratch=False)["batch_size"] == 64
    assert training_settings(machine("3xA10-24G"), from_scratch=False)["batch_size"] == 30
