"""The command line: exit codes, overrides, what goes to stdout, and that it stays light."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import dudi_kit
from dudi_kit import console, pipeline
from dudi_kit.cli import app
from dudi_kit.cli.app import parse_overrides
from dudi_kit.errors import EnvironmentLack, Interrupted
from dudi_kit.recipe.diagnostics import cells
from dudi_kit.recipe.load import check_recipe

VALID = "name: x\nteacher: {model: ./t}\nstudent: {model: ./s}\ndata: {train: {a: {builtin: train}}}\n"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(VALID, encoding="utf-8")
    Path("bad.yaml").write_text(f"{VALID}training: {{sede: 1}}\n", encoding="utf-8")
    return Path("good.yaml")


def call(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


def pretend_pipeline(monkeypatch: pytest.MonkeyPatch, run: Callable[..., None]) -> None:
    """Stand in for the pipeline, which imports torch."""
    module = SimpleNamespace(run=run, train=run, evaluate=run, report=run, plan=run)
    monkeypatch.setitem(sys.modules, "dudi_kit.pipeline.stations", module)
    monkeypatch.setattr(pipeline, "stations", module, raising=False)


def test_valid_and_invalid_recipes(recipe: Path) -> None:
    result = call("validate", "good.yaml")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "✓ good.yaml" in result.stderr
    result = call("validate", "good.yaml", "bad.yaml", "nowhere.yaml")
    assert result.exit_code == 1
    assert result.stdout == (
        "bad.yaml:5:12: error[unknown-key] training.sede: no such key\n"
        "    5 | training: {sede: 1}\n"
        "      |            ^^^^ did you mean 'seed'?\n"
        "nowhere.yaml: error[missing-file]: no such file\n"
    )
    assert "✗ bad.yaml: 1 error" in result.stderr


def test_findings_as_json_and_as_annotations(recipe: Path) -> None:
    (finding,) = json.loads(call("validate", "bad.yaml", "good.yaml", "--format", "json").stdout)
    assert (finding["file"], finding["line"], finding["column"], finding["code"]) == ("bad.yaml", 5, 12, "unknown-key")
    line = call("validate", "bad.yaml", "--format=github").stdout
    assert line.startswith("::error file=bad.yaml,line=5,col=12,title=unknown-key::training.sede: no such key")


def test_findings_as_sarif(recipe: Path) -> None:
    result = call("validate", "bad.yaml", "nowhere.yaml", "--format=sarif", "--training.sede=2")
    assert result.exit_code == 1
    results = json.loads(result.stdout)["runs"][0]["results"]
    assert [(r["ruleId"], r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]) for r in results] == [
        ("unknown-key", "bad.yaml"),
        ("missing-file", "nowhere.yaml"),
    ]


def test_recipes_that_are_named_are_validated_too_and_shared_parents_told_once(recipe: Path) -> None:
    Path("a.yaml").write_text("extends: bad.yaml\nname: a\nteacher: {recipe: bad.yaml}\n", encoding="utf-8")
    result = call("validate", "a.yaml")
    assert result.exit_code == 1
    assert result.stdout.count("error[unknown-key]") == 1
    assert "✗ a.yaml: 1 error" in result.stderr
    assert "✗ bad.yaml: 1 error" in result.stderr
    assert len(json.loads(call("validate", "a.yaml", "--format=json").stdout)) == 1


def test_show_prints_a_recipe_and_tells_when_it_is_broken(recipe: Path) -> None:
    result = call("show", "good.yaml", "--training.seed=1")
    assert result.exit_code == 0
    assert result.stdout.endswith("training:\n  seed: 1  # --set\n")
    broken = call("show", "bad.yaml")
    assert broken.exit_code == 1
    assert "  sede: 1" in broken.stdout
    assert "1 error; dudi-kit validate shows them" in broken.stderr
    assert "precision: bf16" in call("show", "good.yaml", "--resolved").stdout
    assert call("show", "good.yaml", "--resolved", "--diff").exit_code == 2
    assert call("show", "nowhere.yaml").exit_code == 1


def test_show_diff_names_both_sides(recipe: Path) -> None:
    Path("child.yaml").write_text("extends: good.yaml\nname: y\n", encoding="utf-8")
    assert call("show", "child.yaml", "--diff").stdout == "--- good.yaml\n+++ child.yaml\n- name: x\n+ name: y\n"


def test_explain_names_the_nearest_key_and_exits_with_2() -> None:
    result = call("explain", "signals.sequence.beta")
    assert result.exit_code == 0
    assert "1/nats" in result.stdout
    assert "teacher" in call("explain").stdout
    result = call("explain", "trainig.seed")
    assert result.exit_code == 2
    assert "'training'" in result.stderr


@pytest.mark.parametrize("width", [80, 140])
def test_explanations_and_lists_fit_the_terminal(recipe: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(console.out, "width", width)
    for args in (["explain"], ["explain", "signals.on_policy.divergence"], ["explain", "data.train.*"], ["list", "."]):
        lines = call(*args).stdout.splitlines()
        assert len(lines) >= 2
        assert max(map(cells, lines)) <= width, args


def test_a_long_line_is_cut_around_the_mistake_to_fit_a_terminal(recipe: Path) -> None:
    text = f"{VALID}training: {{seed: 1, {' ' * 200}sede: 1}}\n"
    recipe.write_text(text, encoding="utf-8")
    *_, finding = check_recipe(recipe).findings
    _, line, carets = finding.render(72).split("\n")
    assert len(line) <= 80
    assert line[carets.index("^") :].startswith("sede")


def test_list_shows_recipes_and_runs(recipe: Path) -> None:
    Path("outputs/x").mkdir(parents=True)
    Path("outputs/x/plan.json").write_text("{}", encoding="utf-8")
    lines = [line.split() for line in call("list", ".").stdout.splitlines()]
    assert ["x", "good.yaml"] in lines
    assert ["outputs/x", "planned"] in lines
    assert call("list", "nowhere").exit_code == 2


def test_migrate_writes_the_version_once_and_check_writes_nothing(recipe: Path) -> None:
    before = recipe.read_text(encoding="utf-8")
    assert call("migrate", "good.yaml", "--check").exit_code == 1
    assert recipe.read_text(encoding="utf-8") == before
    assert call("migrate", "good.yaml").exit_code == 0
    assert recipe.read_text(encoding="utf-8") == f"version: 1\n{before}"
    result = call("migrate", "good.yaml", "--check")
    assert (result.exit_code, "nothing to do" in result.stderr) == (0, True)
    Path("newer.yaml").write_text("version: 2\nname: x\n", encoding="utf-8")
    result = call("migrate", "newer.yaml")
    assert result.exit_code == 1
    assert "newer.yaml:1:10: error[version]" in result.stdout


def test_what_reads_recipes_alone_imports_no_torch(recipe: Path) -> None:
    calls = [
        ["show", "good.yaml"],
        ["explain", "teacher"],
        ["list", "."],
        ["tasks"],
        ["migrate", "good.yaml", "--check"],
    ]
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom dudi_kit.cli import app\n"
        f"for call in {calls}: assert CliRunner().invoke(app, call).exit_code < 2, call\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_usage_errors_exit_with_2(recipe: Path) -> None:
    for args in (
        ["run", "good.yaml", "--resmue"],
        ["validate"],
        ["no-such-command"],
        ["run", "good.yaml", "--set", "seed"],
    ):
        assert call(*args).exit_code == 2, args
    assert "--resume" in call("run", "good.yaml", "--resmue").stderr
    result = call("run", "good.yaml", "--training.seed", "1")
    assert result.exit_code == 2
    assert "--training.seed=VALUE" in result.stderr


def test_a_dotted_path_to_an_unknown_key_is_a_finding(recipe: Path) -> None:
    result = call("validate", "good.yaml", "--training.sede=1")
    assert result.exit_code == 1
    assert result.stdout.startswith("command line: error[unknown-key] training.sede: no such key\n")


def test_every_spelling_of_an_override(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    pretend_pipeline(monkeypatch, lambda loaded, **options: seen.update(loaded=loaded, **options))
    args = [
        "--training.seed=1",
        "--name=y",
        "--set",
        "description=c = d",
        "--output=out",
        "--output.folder=o",
        "-p",
        "2",
        "--resume",
    ]
    result = call("run", "good.yaml", *args)
    assert result.exit_code == 0, result.output
    loaded = seen.pop("loaded").recipe
    assert (loaded.training.seed, loaded.name, loaded.description) == (1, "y", "c = d")
    assert loaded.output.folder == "o"
    assert seen == {
        "output": Path("out"),
        "processes": 2,
        "profile": False,
        "resume": True,
        "overwrite": False,
        "lock": None,
        "confirm": None,
        "fail_on_contamination": False,
    }


@pytest.mark.parametrize("command", ["train", "evaluate", "report", "plan"])
def test_the_parts_get_what_they_take(recipe: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    seen: dict[str, Any] = {}
    pretend_pipeline(monkeypatch, lambda loaded, **options: seen.update(options))
    assert call(command, "good.yaml", "--training.seed=1").exit_code == 0
    extra = {
        "train": {"processes", "resume", "overwrite", "confirm", "profile"},
        "plan": {"processes", "hardware", "emit"},
        "evaluate": {"fail_on_contamination"},
    }.get(command, set())
    assert set(seen) == {"output", "lock"} | extra


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (EnvironmentLack("no space left. Free 3 GB."), 4, "error: no space left. Free 3 GB."),
        (Interrupted("stopped at step 3; go on with --resume"), 130, "stopped at step 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("ours"), 3, "bug of dudi-kit"),
    ],
)
def test_every_failure_has_its_exit_code(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str, tmp_path: Path
) -> None:
    def fail(loaded: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pretend_pipeline(monkeypatch, fail)
    result = call("run", "good.yaml")
    assert result.exit_code == code
    assert text in result.stderr
    assert "Traceback" not in result.output
    logs = list(tmp_path.glob("dudi-kit-*.log"))
    assert len(logs) == (code == 3)
    assert all("ZeroDivisionError: ours" in log.read_text(encoding="utf-8") for log in logs)


def test_a_mistake_in_the_recipe_is_told_before_torch_is_imported(recipe: Path) -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom dudi_kit.cli import app\n"
        "assert CliRunner().invoke(app, ['run', 'bad.yaml']).exit_code == 1\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_overrides_are_split_at_the_first_equals_sign() -> None:
    assert parse_overrides(["a.b=c=d", "e="]) == [("a.b", "c=d"), ("e", "")]
    assert parse_overrides(None) == []


def test_help_names_the_exit_codes_and_says_what_commands_do() -> None:
    text = call("run", "--help").stdout
    assert "130" in text
    assert "train, evaluate" in " ".join(text.split())
    assert call("--version").stdout == f"dudi-kit {dudi_kit.__version__}\n"


def test_schema_prints_json() -> None:
    assert json.loads(call("schema").stdout)["$schema"].startswith("http://json-schema.org/draft-07")


def test_validate_imports_no_torch(recipe: Path) -> None:
    code = (
        "import sys\nsys.argv = ['dudi-kit', 'validate', 'good.yaml', 'bad.yaml']\nfrom dudi_kit.cli import main\n"
        "try: main()\nexcept SystemExit as end: print('exit', end.code)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'datasets', 'requests', 'httpx', 'httpx2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    lines = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split("\n")
    assert lines[-3:-1] == ["exit 1", "[]"]


def test_a_folder_without_recipes_says_how_to_get_one(tmp_path: Path) -> None:
    assert "dudi-kit init" in " ".join(call("list", str(tmp_path)).stderr.split())
