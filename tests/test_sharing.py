"""What other repositories copy: the GitHub action, its example and the pre-commit hook, run here as they stand."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from dudi_kit.cli.recipes import Format

ROOT = Path(__file__).parent.parent
ACTION = ROOT / ".github/actions/validate/action.yml"
EXAMPLE = ROOT / ".github/examples/validate-recipes.yml"
HOOKS = ROOT / ".pre-commit-hooks.yaml"

GOOD = "name: good\nteacher: {model: ./a}\nstudent: {model: ./b}\ndata: {train: {rows: {builtin: train}}}\n"
BROKEN = GOOD.replace("student", "studnet")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


STEPS = {step["name"]: step for step in read(ACTION)["runs"]["steps"] if "name" in step}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Someone's repository with a good and a broken recipe, and `dudi-kit` in bin/."""
    (tmp_path / "recipes/deep/er").mkdir(parents=True)
    (tmp_path / "recipes/good.yaml").write_text(GOOD)
    (tmp_path / "recipes/deep/er/broken.yaml").write_text(BROKEN)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/dudi-kit"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m dudi_kit.cli "$@"\n')
    command.chmod(0o755)
    return tmp_path


def environment(folder: Path, **more: str) -> dict[str, str]:
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | more


def step(name: str, folder: Path, files: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does, in the folder."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]]
    return subprocess.run(
        command, cwd=folder, env=environment(folder, FILES=files), capture_output=True, text=True, check=False
    )


def test_the_action_marks_the_line_of_a_mistake_at_any_depth(folder):
    result = step("Validate", folder, "recipes/**/*.yaml")
    assert result.returncode == 1
    assert "::error file=recipes/deep/er/broken.yaml,line=3" in result.stdout
    assert "good.yaml,line" not in result.stdout


def test_the_action_is_content_with_good_recipes_and_takes_several_patterns(folder):
    result = step("Validate", folder, "recipes/good.yaml\nrecipes/g*.yaml")
    assert result.returncode == 0, result.stderr


def test_the_action_does_not_pass_where_no_recipe_is_found(folder):
    result = step("Validate", folder, "recipe/*.yaml")
    assert result.returncode == 1
    assert "::error::no recipe matches 'recipe/*.yaml'" in result.stdout


def test_a_file_list_executes_nothing(folder):
    step("Validate", folder, "$(touch owned) `touch owned` ; touch owned")
    assert not (folder / "owned").exists()


@pytest.mark.parametrize(("files", "wrong"), [("recipes/**/*.yaml", True), ("recipes/good.yaml", False)])
def test_the_action_writes_sarif_with_findings_and_without(folder, files, wrong):
    assert step("Write SARIF", folder, files).returncode == 0
    written = read(folder / "dudi-kit.sarif")
    assert written["version"] == "2.1.0"
    assert bool(written["runs"][0]["results"]) == wrong


def test_inputs_reach_the_shell_as_environment_alone():
    for name, one in STEPS.items():
        assert "${{" not in one.get("run", ""), f"{name}: an expression in a script is an injection"


def test_every_format_that_the_action_asks_for_exists():
    asked = {word for one in STEPS.values() if "run" in one for word in _after("--format", one["run"].split())}
    assert asked == {"github", "sarif"}
    assert asked <= {form.value for form in Format}


def _after(option: str, words: list[str]) -> list[str]:
    return [word for before, word in pairwise(words) if before == option]


def test_validation_imports_no_package_that_the_action_does_not_install(folder):
    asked = (
        "import sys; from importlib.metadata import packages_distributions as of; from dudi_kit.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    tops, of = {name.partition('.')[0] for name in sys.modules}, of()\n"
        "    print('\\nneeds', *{d.lower() for top in tops for d in of.get(top, ())}, file=sys.stderr)"
    )
    command = [sys.executable, "-c", asked, "validate", "--format", "github", "recipes/good.yaml"]
    result = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    needed = set(result.stderr.rpartition("\nneeds ")[2].split())
    installed = set(STEPS["Install"]["run"].splitlines()[0].split()[5:])
    assert {"pydantic", "pyyaml", "typer", "rich"} <= installed
    assert needed - _with_dependencies(installed) <= {"dudi-kit", "setuptools"}


def _with_dependencies(names: set[str]) -> set[str]:
    """What pip installs for these names, by lower-case name with dashes and with underscores."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop().lower()
        if name in found:
            continue
        found |= {name, name.replace("-", "_")}
        try:
            wanted = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        left += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_the_example_uses_the_action_with_inputs_that_it_has():
    for workflow in (EXAMPLE, ROOT / ".github/workflows/ci.yml"):
        steps = [one for job in read(workflow)["jobs"].values() for one in job["steps"]]
        mine = [one for one in steps if one.get("uses") == "./.github/actions/validate"]
        assert len(mine) == 1
        assert mine[0]["with"].keys() <= read(ACTION)["inputs"].keys()
    assert read(EXAMPLE)["permissions"]["security-events"] == "write", "uploading SARIF needs it"


def test_the_hook_checks_the_recipes_of_another_repository(folder, tmp_path):
    pytest.importorskip("pre_commit")
    hooks, mine = tmp_path / "hooks", tmp_path / "mine"
    mine.mkdir()
    shutil.copytree(folder / "recipes", mine / "recipes")
    (mine / "other.yaml").write_text("no: recipe\n")
    hooks.mkdir()
    shutil.copy(HOOKS, hooks)
    settings = environment(
        folder, PRE_COMMIT_HOME=str(tmp_path / "cache"), HOME=str(tmp_path), GIT_CONFIG_GLOBAL="/dev/null",
        GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@b",
    )  # fmt: skip

    def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, check=False)

    for repository in (hooks, mine):
        assert run("git", "init", "-q", cwd=repository).returncode == 0
        run("git", "add", "-A", cwd=repository)
        run("git", "commit", "-q", "-m", "all", cwd=repository)
    rev = run("git", "rev-parse", "HEAD", cwd=hooks).stdout.strip()
    config = {"repos": [{"repo": str(hooks), "rev": rev, "hooks": [{"id": "dudi-kit-validate"}]}]}
    (mine / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    run("git", "add", "-A", cwd=mine)
    result = run(sys.executable, "-m", "pre_commit", "run", "--all-files", cwd=mine)
    assert result.returncode == 1
    assert "recipes/deep/er/broken.yaml:3:1: error" in result.stdout
    assert "✓ recipes/good.yaml" in result.stdout
    assert "other.yaml" not in result.stdout
