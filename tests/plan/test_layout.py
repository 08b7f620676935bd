"""Files of a run directory appear whole or not at all."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dudi_kit.errors import EnvironmentLack, Exit
from dudi_kit.plan.layout import RunDir, require_space, write_json, write_text


def full_disk(*arguments: Any, **options: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_a_file_and_its_folders_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "note.txt"
    write_text(path, "ဝါကျ\n")
    assert path.read_text(encoding="utf-8") == "ဝါကျ\n"
    assert [p.name for p in path.parent.iterdir()] == ["note.txt"]


def test_json_keeps_the_order_of_keys_and_every_script(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": 1, "a": "แมว"})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text == '{\n  "b": 1,\n  "a": "แมว"\n}\n'
    assert list(json.loads(text)) == ["b", "a"]


@pytest.mark.parametrize("where", ["write", "flush to disk", "rename"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "plan.json"
    write_text(path, "old")
    target, name = {"write": (Path, "open"), "flush to disk": (os, "fsync"), "rename": (Path, "replace")}[where]
    with monkeypatch.context() as patch:
        patch.setattr(target, name, full_disk)
        with pytest.raises(EnvironmentLack, match=f"can't write {path}: No space left on device") as caught:
            write_text(path, "new")
    assert caught.value.exit_code == Exit.ENVIRONMENT
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_json(path, {"old": True})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentLack, match=r"can't write .*file/run/plan\.json"):
        write_text(tmp_path / "file" / "run" / "plan.json", "text")
    assert (tmp_path / "file").read_text() == "in the way"


def test_too_little_space_is_refused_with_both_numbers_and_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def disk_usage(path: Path) -> SimpleNamespace:
        seen.append(path)
        return SimpleNamespace(total=0, used=0, free=1_500_000_000)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    folder = tmp_path / "not" / "yet"
    with pytest.raises(EnvironmentLack) as caught:
        require_space(folder, 12_340_000_000, "checkpoints")
    said = str(caught.value)
    assert said.startswith(f"no space for checkpoints: {folder} has 1.50 GB free and 12.34 GB are needed. ")
    assert "--output" in said
    assert "training.keep_checkpoints" in said
    assert seen == [tmp_path], "the nearest folder that is there is looked at"
    require_space(folder, 1_500_000_000, "checkpoints")


def test_a_run_is_complete_exactly_when_final_is_there(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (tmp_path / ".final.partial").mkdir()
    assert not run.complete()
    run.final.mkdir()
    assert run.complete()
