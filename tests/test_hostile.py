"""A recipe is untrusted input, and so are the folders that it names: what is hostile is refused with a message.

Through the command line, as a user would call it. After each refusal: nothing was executed, nothing stands outside the
run directory, and nothing looks finished. What a text alone can do is in `recipe/test_hostile.py`, recipes by reference
in `fetch/test_reference.py`.
"""

import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import Result

from dudi_kit import console
from dudi_kit.errors import Exit, Interrupted, ModelError, RunDirectoryError
from dudi_kit.models.loading import load_model
from dudi_kit.plan.layout import RunDir
from dudi_kit.recipe.load import check_recipe, load_recipe
from dudi_kit.train import checkpoints
from tests.small import (
    ROWS,
    TEACHER,
    call,
    changed,
    listing,
    tokenizer,
    write_chain,
    write_recipe,
    write_rows,
    write_shell,
)


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "dudi_kit.pipeline.stations.start_training", lambda *_, **__: pytest.fail("training was started")
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


class Bomb:
    """A pickle that leaves a mark where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def alone(folder: Path, **changes: Any) -> Path:
    """A recipe that trains a student from scratch on a few rows, in a folder of its own."""
    folder = folder / "recipe"
    folder.mkdir(exist_ok=True)
    write_rows(folder / "rows.jsonl", ROWS)
    return write_recipe(folder / "recipe.yaml", changed(TEACHER, **changes))


def with_models(folder: Path, **changes: Any) -> Path:
    """A recipe over two model folders that lie beside it."""
    models = {"teacher": {"model": "./teacher"}, "student": {"model": "./student"}}
    recipe = write_chain(folder / "recipe", **{**models, **changes})
    for name in ("teacher", "student"):
        write_shell(recipe.parent / name, tokenizer())
    return recipe


def refused(recipe: Path, *words: str, command: str = "run", code: Exit = Exit.INVALID, **changes: str) -> Result:
    """Call a command that has to refuse, and see that all is as it was, but for what a plan leaves in `outputs`."""
    folder = recipe.parent
    before = listing(folder)
    result = call(command, recipe, *(f"--{key}={value}" for key, value in changes.items()))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr, f"{word!r} is missing in {result.stderr}"
    assert listing(folder) == before
    assert {path.name for path in folder.parent.iterdir()} <= {"recipe", "here", "elsewhere"}
    assert not list(folder.parent.rglob("final"))
    return result


# Where a run writes


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", ".", "", "a\nb", "x" * 200, "~", "аpple", "-rf"])
def test_a_name_is_a_name(tmp_path: Path, name: str) -> None:
    refused(alone(tmp_path, name=name), "error[", " name: ")
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("folder", ["/tmp/x", "../x", "a/../../x", "~/x", "~root", "", "a\0b", "a\x1bb"])
def test_the_output_folder_stays_below(tmp_path: Path, folder: str) -> None:
    refused(alone(tmp_path, output__folder=folder), "error[", "output")
    assert not list((tmp_path / "here").iterdir())


def test_nothing_is_written_through_a_linked_run_directory(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path("outputs").mkdir()
    Path("outputs/teacher").symlink_to(tmp_path / "elsewhere")
    recipe = alone(tmp_path)
    for command in ("run", "train", "plan"):
        refused(recipe, "is a link to", command=command)
    assert call("run", recipe, "--overwrite").exit_code == 1
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_that_is_somebodys_is_left_alone(tmp_path: Path) -> None:
    Path("outputs/teacher").mkdir(parents=True)
    Path("outputs/teacher/thesis.tex").write_text("mine")
    recipe = alone(tmp_path)
    refused(recipe, "no run directory of dudi-kit")
    assert call("run", recipe, "--overwrite").exit_code == 1
    assert Path("outputs/teacher/thesis.tex").read_text() == "mine"


# What a recipe reads


@pytest.fixture
def odd_files(tmp_path: Path) -> dict[str, Path]:
    """Things with a data file's name that are none."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    odd = {name: folder / f"{name}.jsonl" for name in ("pipe", "zero", "stdin", "environ", "loop", "folder", "none")}
    os.mkfifo(odd["pipe"])
    for name, target in (("zero", "/dev/zero"), ("stdin", "/dev/stdin"), ("environ", "/proc/self/environ")):
        odd[name].symlink_to(target)
    odd["loop"].symlink_to(odd["loop"])
    odd["folder"].mkdir()
    return odd


@pytest.mark.parametrize("what", ["pipe", "zero", "stdin", "environ", "loop", "folder", "none"])
def test_only_files_are_read_as_data(tmp_path: Path, odd_files: dict[str, Path], what: str) -> None:
    recipe = alone(tmp_path, data__train__rows__path=str(odd_files[what]))
    result = refused(recipe, str(odd_files[what]))
    assert "PATH" not in result.output, "nothing of the environment is told"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/proc/self/environ", "/etc/passwd", "/proc/self/mem"])
def test_files_without_a_known_ending_are_not_opened(tmp_path: Path, path: str) -> None:
    result = refused(alone(tmp_path, data__train__rows__path=path), f"{path}: can't read files of type")
    assert "root:" not in result.output


@pytest.mark.parametrize("what", ["pipe", "zero", "environ", "loop"])
def test_parents_templates_and_recipes_are_files_too(tmp_path: Path, odd_files: dict[str, Path], what: str) -> None:
    odd = str(odd_files[what])
    jinja = tmp_path / "elsewhere" / "odd.jinja"
    jinja.symlink_to(odd)
    recipe = alone(tmp_path, extends=odd)
    refused(recipe, "error[missing-parent] extends")
    changes = {
        "verbalizer__demonstration__template": odd,
        "student__chat_template": str(jinja),
        "teacher": {"recipe": odd},
    }
    for key, value in changes.items():
        refused(
            alone(tmp_path, **{key: value}),
            "error[missing-file]",
            str(value["recipe"] if isinstance(value, dict) else value),
        )


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dudi_kit.data.sources.LONGEST_LINE", 1 << 20)
    for name in ("bomb.jsonl", "bomb.csv", "bomb.tsv"):
        recipe = alone(tmp_path, data__train__rows__path=name)
        with (recipe.parent / name).open("wb") as file:
            file.truncate(1 << 33)  # eight sparse gigabytes of \\0
        before = _peak()
        result = call("run", recipe)
        assert (result.exit_code, "longer than 1 MiB" in result.stderr) == (1, True), result.output
        assert _peak() - before < 200 << 20
        (recipe.parent / name).unlink()


def _peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "line",
    [
        "[" * 200_000,
        '{"a":' * 100_000,
        "1" * 100_000,
        '{"prompt": ' + "1" * 50_000 + "}",
        "null",
        '"x"',
        "{",
        "\x00",
        "[]",
    ],
    ids=["lists", "mappings", "number", "cell", "null", "text", "open", "nul", "list"],
)
def test_json_bombs_are_rows_that_can_not_be_read(tmp_path: Path, line: str) -> None:
    recipe = alone(tmp_path)
    with (recipe.parent / "rows.jsonl").open("a") as file:
        file.write(line + "\n")
    refused(recipe, "rows.jsonl:13 (rows): ")


@pytest.mark.parametrize(
    "cell", ['"' + "x" * 300_000, "x" * 300_000, "a,b,c,d,e,f"], ids=["open quote", "long", "wide"]
)
def test_csv_bombs_are_rows_that_can_not_be_read(tmp_path: Path, cell: str) -> None:
    recipe = alone(tmp_path, data__train__rows={"path": "rows.csv", "language": "th"})
    (recipe.parent / "rows.csv").write_text(f"prompt,response\na,b\n{cell},b\n")
    refused(recipe, "rows.csv:3 (rows): ")


# Hub names and local folders


def test_a_hub_name_is_never_a_folder_of_the_current_one(tmp_path: Path) -> None:
    """transformers and datasets would take it; the recipe's own folder is the only one that names are looked up in."""
    recipe = with_models(tmp_path, teacher={"model": "owner/teacher", "revision": "v1"})
    write_shell(Path("owner/teacher"), tokenizer())
    refused(recipe, "'owner/teacher' is a name on the hub", str(Path("owner/teacher").absolute()))
    recipe = alone(tmp_path, data__train__rows={"hub": "owner/rows", "revision": "v1", "language": "th"})
    Path("owner/rows").mkdir()
    write_rows(Path("owner/rows/train.jsonl"), ROWS)
    refused(recipe, "'owner/rows' is a name on the hub")


def test_a_folder_beside_the_recipe_is_that_folder(tmp_path: Path) -> None:
    recipe = with_models(tmp_path, teacher={"model": "owner/teacher"})
    write_shell(recipe.parent / "owner/teacher", tokenizer())
    loaded = check_recipe(recipe).loaded
    assert loaded is not None
    assert loaded.values["teacher"]["model"] == str(recipe.parent / "owner/teacher")


@pytest.mark.parametrize(
    "hub", ["json", "csv", "text", "parquet", "../x", "/x", "./x", "https://x/y", "a/b/c", "оwner/x", "a/b\n"]
)
def test_a_dataset_of_the_hub_is_owner_and_name(tmp_path: Path, hub: str) -> None:
    """`hub: json` would have the datasets library read every JSON file of the current folder."""
    recipe = alone(tmp_path, data__train__rows={"hub": hub, "revision": "v1", "language": "th"})
    result = call("validate", recipe)
    assert result.exit_code == 1
    assert "error[bad-model-name] data.train.rows.hub" in result.stdout


@pytest.mark.parametrize("file", ["../x.gguf", "/x.gguf", "a/../../x.gguf", "https://x/y.gguf"])
def test_a_gguf_lies_in_its_folder(tmp_path: Path, file: str) -> None:
    refused(
        with_models(tmp_path, teacher={"model": "./teacher", "gguf_file": file}), "error[outside] teacher.gguf_file"
    )


# Code and pickles in model folders


@pytest.mark.parametrize("who", ["teacher", "student"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path, who: str, file: str) -> None:
    recipe = with_models(tmp_path)
    folder, mark = recipe.parent / who, tmp_path / "elsewhere"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: ...\n")
    classes = {
        "AutoConfig": "evil.Evil",
        "AutoTokenizer": ["evil.Evil", "evil.Evil"],
        "AutoModelForCausalLM": "evil.Evil",
    }
    content = json.loads((folder / file).read_text())
    unknown = {"model_type": "evil"} if file == "config.json" else {"tokenizer_class": "Evil"}
    (folder / file).write_text(json.dumps({**content, **unknown, "auto_map": classes}))
    refused(recipe, str(folder))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "tf_model.h5", "model.pkl"])
def test_weights_that_may_run_code_are_not_opened(tmp_path: Path, name: str) -> None:
    recipe, mark = with_models(tmp_path), tmp_path / "elsewhere"
    (recipe.parent / "student" / "model.safetensors").unlink()
    torch.save(Bomb(mark), recipe.parent / "student" / name)
    refused(recipe, "has no .safetensors file")
    assert not mark.exists()


def test_a_pickle_under_the_name_of_safetensors_is_no_model(tmp_path: Path) -> None:
    folder, mark = write_shell(tmp_path / "model", tokenizer()), tmp_path / "mark"
    for content in (pickle.dumps(Bomb(mark)), b"\xff" * 64, b"", (2**63 - 1).to_bytes(8, "little") + b"{}"):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match="can't load a causal LM"):
            load_model(str(folder), who="student", dtype="fp32")
    assert not mark.exists()


CONFIGS: dict[str, dict[str, Any]] = {
    "layers": {"num_hidden_layers": 10**9},
    "width": {"hidden_size": 10**15},
    "vocabulary": {"vocab_size": 10**15},
    "negative": {"hidden_size": -1},
    "text": {"hidden_size": "wide"},
    "nothing": {"num_hidden_layers": None},
    "no heads": {"num_attention_heads": 0},
    "unknown": {"model_type": "../../evil"},
}


@pytest.mark.parametrize("change", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_configuration_beyond_any_machine_is_refused_by_arithmetic(tmp_path: Path, change: dict[str, Any]) -> None:
    recipe = with_models(tmp_path)
    config = recipe.parent / "student" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    before = _peak()
    refused(recipe)
    assert _peak() - before < 500 << 20


# Templates

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ prompt.__class__ }}",
    "{{ prompt['__class__'] }}",
    "{{ prompt|attr('__class__') }}",
    "{{ prompt|map(attribute='__class__')|list }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('touch MARK') }}",
    "{{ joiner }}{{ namespace }}{{ lipsum }}",
    "{{ range(10**9)|list }}",
    "{{ 'a' * 10**9 }}",
    "{{ '%1000000000s' % 'a' }}",
    "{{ '{:>1000000000}'.format('a') }}",
    "{{ '{0.__class__}'.format(prompt) }}",
    "{% set x = 'a' %}{% for i in range(99) %}{% set x = x ~ x %}{% endfor %}{{ x }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends '/etc/passwd' %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% call prompt.upper() %}{% endcall %}",
    "{{ prompt.encode() }}",
    "{{ prompt.join(prompt) }}",
    "{% for a in prompt %}{% for b in prompt %}{% for c in prompt %}x{% endfor %}{% endfor %}{% endfor %}",
    "{{ prompt|xmlattr }}{{ prompt|pprint }}{{ prompt|center(10**9) }}",
    "{% do prompt %}",
    "{{ prompt",
    "{{ url_for.__globals__ }}",
    "{{ ().__class__.__base__.__subclasses__()[100]('touch MARK', shell=True) }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_no_template_of_a_recipe_gets_out(tmp_path: Path, template: str) -> None:
    form = {"type": "template", "prompt": template, "response": "{{ response }}"}
    refused(alone(tmp_path, data__train__rows__format=form, data__train__rows__english=None), "rows")
    recipe = with_models(tmp_path, verbalizer={"demonstration": {"template": "shown.jinja"}})
    (recipe.parent / "shown.jinja").write_text(template)
    refused(recipe, "verbalizer.demonstration.template")


CHAT_ESCAPES = [
    "{{ messages.__class__.__mro__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__()[100]('touch MARK', shell=True) }}",
    "{{ cycler.__init__.__globals__.os.popen('touch MARK').read() }}",
    "{{ raise_exception.__globals__['__builtins__']['open']('MARK', 'w') }}",
    "{{ strftime_now.__globals__ }}",
    "{{ messages|attr('__class__')|attr('__mro__') }}",
    "{{ self._TemplateReference__context.environment.loader }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch MARK') }}",
    "{{ messages.append(1) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ 'a' * 10**12 }}",
    "{{ range(10**9)|list }}",
    "{{ 1 / 0 }}",
    "{{ messages[99].content.x.y }}",
    "{% for",
]


@pytest.mark.parametrize("template", CHAT_ESCAPES)
def test_no_chat_template_of_a_model_folder_gets_out(tmp_path: Path, template: str) -> None:
    recipe, mark = with_models(tmp_path), tmp_path / "elsewhere"
    for file in (recipe.parent / "student").glob("chat_template*"):
        file.unlink()
    config = recipe.parent / "student" / "tokenizer_config.json"
    content = {**json.loads(config.read_text()), "chat_template": template.replace("MARK", str(mark))}
    config.write_text(json.dumps(content))
    refused(recipe, "student")
    assert not mark.exists()


# Numbers

NUMBERS: dict[str, dict[str, Any]] = {
    "steps": {"training__steps": 10**30},
    "epochs": {"training__steps": None, "training__epochs": 1e308},
    "batch": {"training__batch_size": 10**9},
    "vocabulary": {"student__tokenizer": {"vocabulary_size": 10**30}},
    "width": {"student__architecture__hidden_size": 10**9},
    "layers": {"student__architecture__layers": 10**9},
    "all at once": {
        "student__architecture": {"hidden_size": 10**6, "layers": 100, "heads": 1000, "intermediate_size": 10**6},
    },
    "weight": {"data__train__rows__weight": 1e308},
    "negative": {"training__batch_size": -1},
    "not a number": {"training__learning_rate": float("nan")},
    "infinite": {"training__learning_rate": float("inf")},
    "digits": {"verbalizer__demonstration__seed": 10**400},
}


@pytest.mark.parametrize("changes", NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_beyond_any_machine_are_refused_before_memory_is_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    before = _peak()
    recipe = alone(tmp_path, **changes)
    recipe.write_text(recipe.read_text().replace(": inf", ": .inf").replace(": nan", ": .nan"))
    result = call("plan", recipe)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert _peak() - before < 500 << 20


# What is printed


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"


def test_no_text_moves_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for speak in (console.say, console.notice, console.fail):
        speak(f"a{HOSTILE}b\r\nc [red]d[/red] [link=http://x]e[/link]")
    printed = "".join(capsys.readouterr())
    assert not set(HOSTILE.replace("]0;owned", "")) & set(printed) - set("[2J31m")
    assert "\r" not in printed
    assert "[red]d[/red] [link=http://x]e[/link]" in printed, "square brackets are text, and style nothing"


def test_no_text_commands_a_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    for speak in (console.say, console.notice, console.fail):
        speak("x\n::error file=a::b\n  ::stop-commands::t\n##[error]c and ##[group]d\r::warning::e")
    for line in "".join(capsys.readouterr()).splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


def test_texts_of_a_recipe_and_of_rows_reach_the_terminal_harmless(tmp_path: Path) -> None:
    recipe = alone(tmp_path)
    rows = [{**ROWS[0], "language": f"{HOSTILE}\n::error::x"}]
    write_rows(recipe.parent / "rows.jsonl", rows)
    result = call("run", recipe)
    assert result.exit_code == 1
    hostile = recipe.parent / f"a{HOSTILE}.yaml"
    hostile.write_text("x: 1\n")
    found = call("validate", hostile).output
    for text in (result.output, found):
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(text)
        assert not any(line.lstrip().startswith("::") for line in text.splitlines())


def test_annotations_can_not_be_forged(tmp_path: Path) -> None:
    path = tmp_path / "a,line=9::b\n::error file=c::d.yaml"
    path.write_text('"x\\u000a::error::y": 1\nname: "a\\n::error::b"\ntraining: {schedule: "%0A\\n::warning::c"}\n')
    lines = call("validate", path, "--format=github").stdout.splitlines()
    assert len(lines) >= 3
    for line in lines:
        properties, _, message = line.removeprefix("::error ").partition("::")
        assert line.startswith("::error file=")
        assert properties.count(",") == 3, "file, line, column and title"
        assert "a%2Cline=9%3A%3Ab%0A%3A%3Aerror file=c%3A%3Ad.yaml" in properties
        assert message


@pytest.mark.parametrize("unseen", ["\u200b", "\u202e", "\ufeff", "\u2060", "\u00ad", "\u2066"])
def test_a_key_that_looks_like_another_is_told(tmp_path: Path, unseen: str) -> None:
    recipe = alone(tmp_path)
    with recipe.open("a", encoding="utf-8") as file:
        file.write(f'"des{unseen}cription": x\n')
    found = check_recipe(recipe).findings
    assert [finding.code for finding in found] == ["bad-character"]
    assert f"U+{ord(unseen):04X}" in found[0].message


def test_words_with_joiners_and_marks_stay_as_they_are(tmp_path: Path) -> None:
    """Scripts of Southeast Asia need them: U+200B, U+200C and U+200D in a value are text."""
    recipe = alone(tmp_path, description="ខ្ញុំ\u200bស្រលាញ់ က\u200cျ ක්\u200dෂ")
    assert check_recipe(recipe).findings == ()


# Checkpoints


def test_a_pickle_in_a_checkpoint_is_never_opened(tmp_path: Path) -> None:
    """Whatever its name, and although its manifest fits."""
    from dudi_kit.train.saving import Saving

    run, mark = RunDir(tmp_path / "run"), tmp_path / "mark"
    partial = checkpoints.partial_folder(run, 1)
    for name in (
        "model.safetensors",
        "state/exp_avg.safetensors",
        "state/random-0.safetensors",
        "state/x.pt",
    ):
        (partial / name).write_bytes(pickle.dumps(Bomb(mark)))
    facts = {"lock": "x", "processes": 1, "packed": False}
    found = checkpoints.publish(run, partial, 1, facts, keep=2)
    assert checkpoints.latest(run) == (found, [])
    model: Any = SimpleNamespace(student=SimpleNamespace(module=torch.nn.Linear(1, 1)), reference=None)
    with pytest.raises(RunDirectoryError, match="step-1 does not hold the state of this run"):
        Saving(run, None, None, None).load(found, model)  # type: ignore[arg-type]
    assert not mark.exists()


# Somebody else's recipe


def test_who_says_no_to_a_plan_trains_nothing_and_keeps_the_run_that_was_there(tmp_path: Path) -> None:
    """`run` by reference asks between plan and training; with --overwrite the old run comes back."""
    from dudi_kit.pipeline import stations

    def no() -> None:
        assert Path("outputs/teacher/plan.json").is_file(), "the plan is there to be looked at"
        raise Interrupted("not run")

    loaded = load_recipe(alone(tmp_path))
    options: dict[str, Any] = {"output": None, "processes": 1, "resume": False, "lock": None, "confirm": no}
    with pytest.raises(Interrupted):
        stations.run(loaded, overwrite=False, **options)
    Path("outputs/teacher/final").mkdir()
    Path("outputs/teacher/final/weights").touch()
    with pytest.raises(Interrupted):
        stations.run(loaded, overwrite=True, **options)
    assert Path("outputs/teacher/final/weights").is_file()
