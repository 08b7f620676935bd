"""Recipes by URL and hub reference: fetched whole, shown before they run, and never out of their own folder."""

import hashlib
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from dudi_kit import pipeline
from dudi_kit.cli import app
from dudi_kit.errors import EnvironmentLack
from dudi_kit.fetch import collect, hub, web
from dudi_kit.fetch.collect import cache_folder, fetch, within
from dudi_kit.recipe.load import check_recipe
from tests.fetch.conftest import COMMIT, Site
from tests.small import ROWS, TEACHER, call, changed, listing, write_rows

TAIL = "student: {model: o/s, revision: v1}\ndata: {train: {a: {builtin: train}}}\n"
RECIPE = f"name: shared\nteacher: {{model: o/t, revision: v1}}\n{TAIL}"


def codes(site: Site, text: str, **others: str) -> list[tuple[str, str]]:
    """(code, path) of the findings of `x.yaml` as the site has it."""
    site.put(x=text, **others)
    fetched = fetch(f"{site.address}/x.yaml")
    return [(finding.code, finding.path) for finding in check_recipe(fetched.file, (), fetched.root).findings]


def test_a_recipe_its_parents_and_all_that_it_names_are_fetched(site: Site) -> None:
    site.put(
        x="extends: base/base.yaml\nname: x\nteacher: {recipe: t.yaml, model: null}\n"
        "verbalizer: {demonstration: {template: shown.jinja}}\n"
        "data: {train: {a: {path: 'rows.{language}.csv', languages: [id, th], english: {path: en.csv, key: id}}}}\n",
        t=f"name: t\n{TAIL}signals: {{}}\n".replace("a: {builtin: train}", "a: {path: t.csv, language: id}"),
        **{"base/base": "extends: ../root.yaml\ndata: {train: {a: {path: replaced.csv}}}\n", "root": RECIPE},
    )
    data = {f"/{name}": name.encode() for name in ("shown.jinja", "rows.id.csv", "rows.th.csv", "en.csv", "t.csv")}
    site.files.update(data)
    fetched = fetch(f"{site.address}/x.yaml")
    assert fetched.file == fetched.root / "x.yaml"
    assert next(iter(fetched.sums)) == "x.yaml"
    expected = {path.removeprefix("/"): text for path, text in site.files.items()}
    assert listing(fetched.root) == expected
    assert fetched.sums == {path: hashlib.sha256(text).hexdigest() for path, text in expected.items()}  # type: ignore[arg-type]
    assert "/base/replaced.csv" not in site.asked, "what the child replaces is not needed"
    assert check_recipe(fetched.file, (), fetched.root).loaded is not None


def test_the_cache_is_named_by_its_content_and_a_damaged_copy_is_replaced(site: Site, tmp_path: Path) -> None:
    site.put(x=RECIPE)
    first, again = (fetch(f"{site.address}/x.yaml") for _ in range(2))
    assert first == again
    assert first.root.is_relative_to(tmp_path / "cache")
    first.file.write_text("name: other")
    assert fetch(f"{site.address}/x.yaml").file.read_text() == RECIPE
    site.put(x=RECIPE + "description: changed\n")
    assert fetch(f"{site.address}/x.yaml").root != first.root
    assert not list(cache_folder().glob(".fetching-*"))
    assert os.listdir() == [], "nothing is written in the current folder"


@pytest.mark.parametrize(
    "reference",
    [
        "http://example.org/x.yaml",
        "ftp://localhost/x.yaml",
        "file:///etc/x.yaml",
        "https://user:secret@example.org/x.yaml",
        "https://example.org/x.yaml?token=1",
        "https://example.org/%2e%2e/x.yaml",
        "https://example.org/a%2f..%2fx.yaml",
        "https://example.org/x.json",
        "https://example.org/",
        "https://:0/x.yaml",
        "https://example.org:99999/x.yaml",
        "https://[1/x.yaml",
        "hub:owner/x.yaml",
        "hub:owner/name/../x.yaml@v1",
        "hub:owner/name/x.bin@v1",
        "hub:../name/x.yaml",
        "hub:",
    ],
)
def test_what_is_no_address_of_a_recipe_is_a_usage_error(site: Site, reference: str) -> None:
    result = call("validate", reference)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("data: {train: {a: {path: /etc/passwd.csv, language: id}}}", "data.train.a.path"),
        ("data: {train: {a: {path: ../rows.csv, language: id}}}", "data.train.a.path"),
        ("data: {train: {a: {path: ~/rows.csv, language: id}}}", "data.train.a.path"),
        ("data: {train: {a: {path: a/../../rows.csv, language: id}}}", "data.train.a.path"),
        ("data: {train: {a: {path: 'https://other/rows.csv', language: id}}}", "data.train.a.path"),
        ("data: {held_out: {a: {path: /x.csv, language: id}}}", "data.held_out.a.path"),
        (
            "data: {train: {a: {path: a.csv, language: id, english: {path: /en.csv, key: i}}}}",
            "data.train.a.english.path",
        ),
        ("evaluation: {tasks: {q: {data: {path: ../q.csv, language: id}}}}", "evaluation.tasks.q.data.path"),
        ("teacher: {recipe: ../t.yaml}", "teacher.recipe"),
        ("teacher: {recipe: 'hub:o/r/t.yaml@v1'}", "teacher.recipe"),
        ("teacher: {model: /models/t}", "teacher.model"),
        ("teacher: {model: ./t}", "teacher.model"),
        ("teacher: {tokenizer: ~/t}", "teacher.tokenizer"),
        ("teacher: {chat_template: /t.jinja}", "teacher.chat_template"),
        ("verbalizer: {demonstration: {template: {th: ../t.jinja}}}", "verbalizer.demonstration.template.th"),
        ("deepspeed: {stage: 3, offload: {optimizer: nvme, nvme_path: ./x}}", "deepspeed.offload.nvme_path"),
        ("output: {folder: /tmp/x}", "output.folder"),
        ("output: {folder: ../x}", "output.folder"),
        ("output: {folder: ~/x}", "output.folder"),
        ("output: {folder: link/x}", "output.folder"),
    ],
)
def test_no_path_leaves_the_recipes_folder(site: Site, tmp_path: Path, change: str, path: str) -> None:
    os.symlink(tmp_path, "link")
    assert codes(site, f"extends: base.yaml\n{change}\n", base=RECIPE) == [("outside", path)]
    assert all(asked in ("/x.yaml", "/base.yaml", "/a.csv") for asked in site.asked)


@pytest.mark.parametrize("parent", ["../base.yaml", "/etc/base.yaml", "~/base.yaml", "https://other/base.yaml"])
def test_no_parent_lies_elsewhere(site: Site, parent: str) -> None:
    assert codes(site, f"extends: {parent}\n{RECIPE}") == [("outside", "extends")]
    assert site.asked == ["/x.yaml"]


def test_recipes_that_it_names_are_confined_too(site: Site) -> None:
    site.put(x=f"name: x\nteacher: {{recipe: t.yaml}}\n{TAIL}", t=f"name: t\nteacher: {{recipe: /etc/u.yaml}}\n{TAIL}")
    result = call("plan", f"{site.address}/x.yaml")
    assert result.exit_code == 1
    assert "error[outside] teacher.recipe: '/etc/u.yaml' lies outside the recipe's folder" in result.stderr


def test_verdicts_name_the_address(site: Site) -> None:
    site.put(x=f"name: x\nteacher: {{recipe: t.yaml}}\n{TAIL}", t=f"name: t\nteacher: {{recipe: /etc/u.yaml}}\n{TAIL}")
    said = call("validate", f"{site.address}/x.yaml").stderr
    assert f"✓ {site.address}/x.yaml\n" in said
    assert f"✗ {site.address}/t.yaml: 1 error" in said


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "rows.csv").symlink_to(tmp_path / "secret.csv")
    (root / "base.yaml").symlink_to(tmp_path / "base.yaml")
    (root / "x.yaml").write_text(RECIPE.replace("builtin: train", "path: rows.csv, language: id"))
    (root / "y.yaml").write_text("extends: base.yaml\n")
    for name, path in (("x", "data.train.a.path"), ("y", "extends")):
        found = check_recipe(root / f"{name}.yaml", (), root).findings
        assert [(finding.code, finding.path) for finding in found] == [("outside", path)]
    assert check_recipe(root / "x.yaml").loaded is not None, "on the user's own disk a link is the user's"


def test_environment_variables_stay_words(site: Site) -> None:
    site.put(x=RECIPE.replace("builtin: train", "path: '$HOME/${HOME}.csv', language: id"))
    fetched = fetch(f"{site.address}/x.yaml")
    loaded = check_recipe(fetched.file, (), fetched.root).loaded
    assert loaded is not None
    assert loaded.values["data"]["train"]["a"]["path"] == str(fetched.root / "$HOME/${HOME}.csv")


def test_what_the_user_says_on_the_command_line_is_the_users(site: Site, tmp_path: Path) -> None:
    site.put(x=RECIPE)
    overrides = [("teacher.model", str(tmp_path)), ("output.folder", "runs")]
    fetched = fetch(f"{site.address}/x.yaml", overrides)
    assert check_recipe(fetched.file, overrides, fetched.root).loaded is not None


# Limits


def test_limits_on_size_and_number_of_files(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put(x="#" * (2**20 + 1))
    result = call("validate", f"{site.address}/x.yaml")
    assert result.exit_code == 1
    assert "larger than 1,048,576 bytes" in result.stderr
    rows = ", ".join(f"d{i}: {{path: {i}.csv, language: id}}" for i in range(200))
    site.put(x=RECIPE.replace("a: {builtin: train}", rows))
    result = call("validate", f"{site.address}/x.yaml")
    assert (result.exit_code, "more than 100 files" in result.stderr) == (1, True)
    site.put(x=RECIPE.replace("builtin: train", "path: a.csv, language: id"))
    site.files["/a.csv"] = b"x" * 2000
    monkeypatch.setattr(collect, "LARGEST_IN_ALL", 1000)
    assert "put its data on the hub" in call("validate", f"{site.address}/x.yaml").stderr
    assert not any(cache_folder().iterdir())


def test_a_server_that_dribbles_or_breaks_off_or_is_not_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def dribble(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
        for _ in range(20):
            time.sleep(0.05)
            handler.wfile.write(b"X: y\r\n")

    def break_off(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nname: x\n")

    monkeypatch.setattr(collect, "SECONDS", 0.3)
    for answer, words in ((dribble, "not here after 0.3 seconds"), (break_off, "broke off")):
        site.files["/x.yaml"] = answer
        result = call("validate", f"{site.address}/x.yaml")
        assert (result.exit_code, words in result.stderr) == (4, True), result.output
    result = call("validate", "http://127.0.0.1:9/x.yaml")
    assert (result.exit_code, "can't be reached" in result.stderr) == (4, True)
    result = call("validate", f"{site.address}/nowhere.yaml")
    assert (result.exit_code, "there is no such file" in result.stderr) == (1, True)


def test_the_result_and_the_error_of_bounded_work_come_through() -> None:
    assert within(5, lambda: 3, "x") == 3
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0, "x")
    with pytest.raises(EnvironmentLack):
        within(0.01, lambda: time.sleep(0.5), "x")


@pytest.mark.parametrize("target", ["http://example.org/x.yaml", "file:///etc/passwd", "ftp://localhost/x.yaml"])
def test_only_encrypted_redirects_are_followed(site: Site, target: str) -> None:
    def lead_on(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    site.files["/x.yaml"] = lead_on
    result = call("validate", f"{site.address}/x.yaml")
    assert result.exit_code == 1
    assert target in result.stderr


def test_an_encrypted_server_can_not_lead_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    request = web.urllib.request.Request("https://example.org/x.yaml")
    with pytest.raises(ValueError, match="only https is followed"):
        web._SafeRedirects().redirect_request(request, None, 302, "", {}, "http://127.0.0.1/x.yaml")
    followed = web._SafeRedirects().redirect_request(request, None, 302, "", {}, "https://other.org/x.yaml")
    assert followed.full_url == "https://other.org/x.yaml"


def test_a_page_for_people_is_told_from_a_recipe(site: Site) -> None:
    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html></html>")

    site.files["/x.yaml"] = page
    assert "address of the raw file" in call("validate", f"{site.address}/x.yaml").stderr


# The command line


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for the pipeline: what it was called with, after it has asked."""
    calls: list[Any] = []

    def run(loaded: Any, confirm: Any = None, **_: Any) -> None:
        calls.append("planned")
        if confirm:
            confirm()
        calls.append(loaded)

    module = SimpleNamespace(run=run, train=run, plan=run, evaluate=run, report=run)
    monkeypatch.setitem(sys.modules, "dudi_kit.pipeline.stations", module)
    monkeypatch.setattr(pipeline, "stations", module, raising=False)
    return calls


@pytest.mark.parametrize("command", ["run", "train"])
def test_without_a_terminal_a_reference_runs_only_with_yes(site: Site, started: list[Any], command: str) -> None:
    site.put(x=RECIPE)
    result = call(command, f"{site.address}/x.yaml")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert (started, site.asked) == ([], []), "nothing is even fetched"
    result = call(command, f"{site.address}/x.yaml", "--yes")
    assert result.exit_code == 0, result.output
    assert started[0] == "planned"
    assert started[1].recipe.name == "shared"
    assert f"{site.address}/x.yaml" in result.stderr
    assert hashlib.sha256(RECIPE.encode()).hexdigest() in result.stderr


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 130), ("", 130)])
def test_in_a_terminal_the_plan_comes_before_the_question(
    site: Site, started: list[Any], monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    site.put(x=RECIPE)
    monkeypatch.setattr("dudi_kit.cli.reference.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    result = CliRunner().invoke(app, ["run", f"{site.address}/x.yaml"], input=answer)
    assert result.exit_code == code, result.output
    assert "Run this recipe?" in result.stderr
    assert (len(started) == 2) == (code == 0)


def test_a_file_is_run_without_a_question(started: list[Any], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(RECIPE)
    assert call("run", tmp_path / "x.yaml").exit_code == 0
    assert len(started) == 2


def test_findings_name_the_address_and_not_the_cache(site: Site) -> None:
    site.put(x="extends: base.yaml\ntraining: {sede: 1}\n", base=RECIPE + "rollouts: {top: 1}\n")
    result = call("validate", f"{site.address}/x.yaml")
    assert result.exit_code == 1
    assert f"{site.address}/x.yaml:2:12: error[unknown-key] training.sede" in result.stdout
    assert f"{site.address}/base.yaml:5:12: error[unknown-key] rollouts.top" in result.stdout


def test_validate_of_a_reference_imports_no_torch(site: Site) -> None:
    site.put(x=RECIPE)
    code = (
        f"import sys\nsys.argv = ['dudi-kit', 'validate', '{site.address}/x.yaml']\nfrom dudi_kit.cli import main\n"
        "try: main()\nexcept SystemExit as end: print('exit', end.code)\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[-3:-1] == ["exit 0", "[]"], done.stderr


def test_a_shared_recipe_with_its_own_rows_is_planned(site: Site, tmp_path: Path) -> None:
    """For real: the plan of a fetched recipe, whose output goes below the current folder."""
    import yaml

    recipe = changed(TEACHER, data__held_out=None)
    site.files["/dir/t.yaml"] = yaml.safe_dump(recipe).encode()
    site.files["/dir/rows.jsonl"] = write_rows(tmp_path / "rows.jsonl", ROWS).read_bytes()
    result = call("plan", f"{site.address}/dir/t.yaml")
    assert result.exit_code == 0, result.output
    assert Path("outputs/teacher/plan.json").is_file()
    assert Path("outputs/teacher/recipe.yaml").read_bytes() == site.files["/dir/t.yaml"]


# The hub


def test_a_recipe_of_a_stand_in_hub_is_fetched_and_pinned(site: Site, tmp_path: Path) -> None:
    """huggingface_hub itself against a server that answers as the hub does."""
    recipe = RECIPE.replace("builtin: train", "path: rows.csv, language: id")
    for revision in ("v1", COMMIT):
        site.files[f"/datasets/owner/repo/resolve/{revision}/dir/x.yaml"] = recipe.encode()
        site.files[f"/datasets/owner/repo/resolve/{revision}/dir/rows.csv"] = b"prompt,response\na,b\n"
    environment = {**os.environ, "HF_ENDPOINT": site.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "dudi_kit.cli", "validate", "hub:datasets/owner/repo/dir/x.yaml@v1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    log = " ".join(done.stderr.split())
    assert f"hub:datasets/owner/repo/dir/x.yaml@{COMMIT}" in log
    assert "'v1' is no commit" in log
    (kept,) = cache_folder().iterdir()
    assert sorted(listing(kept)) == ["rows.csv", "x.yaml"]
    command[-1] = "hub:datasets/owner/repo/dir/none.yaml@v1"
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1, done.stderr


def test_a_file_of_the_hub_over_the_limit_is_not_downloaded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo: str, path: str, *, dry_run: bool = False, **_: Any) -> Any:
        assert dry_run, "nothing may be downloaded"
        return SimpleNamespace(commit_hash=COMMIT, file_size=10**12)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    result = call("validate", "hub:owner/repo/x.yaml")
    assert result.exit_code == 1
    assert "larger than" in result.stderr


def test_a_hub_out_of_reach_is_the_machines_lack(site: Site) -> None:
    result = call("validate", "hub:owner/repo/x.yaml@v1")
    assert result.exit_code == 4, result.output
    assert "can't be reached" in result.stderr
