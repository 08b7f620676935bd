"""A checkpoint is there whole or not at all, and a damaged one is never taken for a good one."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from dudi_kit.errors import EnvironmentLack, Exit, RunDirectoryError
from dudi_kit.plan.layout import RunDir
from dudi_kit.train import checkpoints
from dudi_kit.train.checkpoints import MANIFEST, forget_after, latest, partial_folder, publish, writing
from dudi_kit.train.saving import Saving


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def save(run: RunDir, step: int, *, keep: int = 10, best: int | None = None) -> Path:
    """A checkpoint of two files, one in a folder."""
    partial = partial_folder(run, step)
    (partial / "state" / "weights.safetensors").write_bytes(bytes([step]) * 100)
    (partial / "config.json").write_bytes(b"reference")
    return publish(run, partial, step, {"lock": "abc", "processes": 2}, keep, best).path


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "state" / "weights.safetensors").read_bytes())
    content[50] ^= 4
    (folder / "state" / "weights.safetensors").write_bytes(content)


def cut_the_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flip_a_bit, "state/weights.safetensors is damaged"),
    "a cut file": (
        lambda f: (f / "state" / "weights.safetensors").write_bytes(b"half"),
        "state/weights.safetensors is damaged: its size or sha256 differs",
    ),
    "a longer file": (lambda f: (f / "config.json").write_bytes(b"reference and more"), "config.json is damaged"),
    "an empty file": (lambda f: (f / "config.json").write_bytes(b""), "config.json is damaged"),
    "a missing file": (
        lambda f: (f / "state" / "weights.safetensors").unlink(),
        "state/weights.safetensors is missing",
    ),
    "a folder for a file": (lambda f: [(f / "config.json").unlink(), (f / "config.json").mkdir()], "is missing"),
    "a cut manifest": (cut_the_manifest, f"{MANIFEST} is missing or damaged"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), f"{MANIFEST} is missing or damaged"),
    "a manifest without files": (lambda f: (f / MANIFEST).write_text("{}"), f"{MANIFEST} is missing or damaged"),
    "a manifest of something else": (lambda f: (f / MANIFEST).write_text("[1]"), f"{MANIFEST} is missing or damaged"),
    "files in a list": (lambda f: (f / MANIFEST).write_text('{"files": []}'), f"{MANIFEST} is missing or damaged"),
}


def test_the_newest_by_step_and_not_by_name_or_time(run):
    for step in (10, 2, 9):
        save(run, step)
    os.utime(run.checkpoints / "step-2")
    found, skipped = latest(run)
    assert (found.step, found.path.name, skipped) == (10, "step-10", [])


def test_no_checkpoints_no_folder_nothing_found(run):
    assert latest(run) == (None, [])
    run.checkpoints.mkdir(parents=True)
    assert latest(run) == (None, [])


def test_facts_and_a_description_of_every_file_are_kept(run):
    save(run, 4)
    found, _ = latest(run)
    facts = checkpoints.facts(found)
    assert (facts["lock"], facts["processes"], facts["step"]) == ("abc", 2, 4)
    assert set(facts["files"]) == {"state/weights.safetensors", "config.json"}
    assert facts["files"]["state/weights.safetensors"]["bytes"] == 100


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_newest_is_passed_over_with_its_name_and_reason(run, kind):
    damage, reason = DAMAGE[kind]
    save(run, 2)
    damage(save(run, 4))
    found, skipped = latest(run)
    assert found.step == 2
    assert len(skipped) == 1
    assert skipped[0].startswith("step-4: ")
    assert reason in skipped[0]


def test_two_damaged_ones_are_both_named_and_nothing_is_left(run):
    for step in (2, 4):
        flip_a_bit(save(run, step))
    found, skipped = latest(run)
    assert found is None
    assert [text.partition(":")[0] for text in skipped] == ["step-4", "step-2"]


def test_a_partial_checkpoint_is_not_found_and_is_emptied_when_written_again(run):
    save(run, 2)
    left = partial_folder(run, 4)
    (left / "stale.pt").write_bytes(b"half")
    found, skipped = latest(run)
    assert (found.step, skipped) == (2, [])
    assert [path.name for path in partial_folder(run, 4).rglob("*")] == ["state"]


@pytest.mark.parametrize("name", ["step-", "step-last", "step-4.bak", "notes"])
def test_folders_with_other_names_are_left_alone(run, name):
    save(run, 2)
    (run.checkpoints / name).mkdir()
    assert latest(run)[0].step == 2
    save(run, 4, keep=1)
    assert {folder.name for folder in run.checkpoints.iterdir()} == {"step-4", name}


def test_only_the_newest_are_kept(run):
    for step in (2, 4, 10):
        save(run, step, keep=2)
    assert sorted(folder.name for folder in run.checkpoints.iterdir()) == ["step-10", "step-4"]


def test_the_best_step_outlives_newer_ones_until_a_better_one_comes(run):
    def there(step: int, best: int) -> list[str]:
        save(run, step, keep=1, best=best)
        return sorted(folder.name for folder in run.checkpoints.iterdir())

    assert [there(*at) for at in [(2, 2), (4, 2), (6, 2)]] == [["step-2"], ["step-2", "step-4"], ["step-2", "step-6"]]
    assert there(8, 8) == ["step-8"]


def test_a_copied_model_has_nothing_of_the_run_s_state(run, tmp_path):
    checkpoints.copy_model(save(run, 2), tmp_path / "final")
    assert [file.name for file in (tmp_path / "final").iterdir()] == ["config.json"]


def test_older_ones_go_only_after_the_new_one_is_whole(run, monkeypatch):
    save(run, 2, keep=1)
    partial = partial_folder(run, 4)
    (partial / "weights.safetensors").write_bytes(b"new")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(EnvironmentLack, match="No space left on device"):
        publish(run, partial, 4, {}, 1)
    assert latest(run)[0].step == 2


def test_a_step_written_again_replaces_the_damaged_one(run):
    flip_a_bit(save(run, 4))
    save(run, 4)
    assert latest(run)[0].step == 4


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_what_a_full_disk_raises_becomes_an_error_with_checkpoint_and_way_on(tmp_path, error):
    with pytest.raises(EnvironmentLack) as caught, writing(tmp_path / ".step-4.partial"):
        raise error
    assert caught.value.exit_code is Exit.ENVIRONMENT
    assert "step-4" in str(caught.value)
    assert "--resume" in str(caught.value)


def test_a_disk_that_is_really_full_loses_nothing_saved_before(run):
    """A file system of one megabyte, which only root may mount."""
    run.checkpoints.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(run.checkpoints)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system can't be mounted here")
    try:
        save(run, 2)
        before = {file: file.read_bytes() for file in run.checkpoints.rglob("*") if file.is_file()}
        partial = partial_folder(run, 4)
        with pytest.raises(EnvironmentLack, match="No space left on device"), writing(partial):
            save_file({"weights": torch.zeros(1_000_000)}, partial / "state" / "weights.safetensors")
        assert {file: file.read_bytes() for file in run.checkpoints.rglob("*") if file.is_file()} == before
        assert latest(run)[0].step == 2
        save(run, 6)
        assert latest(run)[0].step == 6, "what was half written takes no room"
    finally:
        subprocess.run(["umount", str(run.checkpoints)], check=True)


def test_what_the_disk_gives_back_is_compared_before_the_name_is_given(run, monkeypatch):
    """A disk that swallows what it was given: the file changes when it is flushed."""
    save(run, 2, keep=1)
    real = checkpoints._flush

    def lose(path: Path) -> None:
        real(path)
        if path.name == "weights.safetensors":
            path.write_bytes(b"")

    monkeypatch.setattr(checkpoints, "_flush", lose)
    with pytest.raises(EnvironmentLack, match=r"weights.safetensors is damaged.*read back"):
        save(run, 4, keep=1)
    found, skipped = latest(run)
    assert (found.step, skipped) == (2, [])


def test_content_names_and_folder_are_flushed_before_older_ones_go(run, monkeypatch):
    save(run, 2, keep=1)
    flushed: list[str] = []
    real = checkpoints._flush

    def note(path: Path) -> None:
        real(path)
        flushed.append(path.name)
        assert (run.checkpoints / "step-2").is_dir()

    monkeypatch.setattr(checkpoints, "_flush", note)
    save(run, 4, keep=1)
    assert flushed[-1] == "checkpoints"
    assert {"weights.safetensors", "config.json", MANIFEST, "state", ".step-4.partial"} <= set(flushed)
    assert not (run.checkpoints / "step-2").exists()


def test_other_failures_while_saving_are_not_blamed_on_the_disk(tmp_path):
    with pytest.raises(RuntimeError, match="shapes differ"), writing(tmp_path):
        raise RuntimeError("shapes differ, can't overwrite")
    with pytest.raises(ValueError, match="else"), writing(tmp_path):
        raise ValueError("something else")


def test_a_folder_that_can_not_be_made_is_an_error_about_the_checkpoint(run):
    run.path.mkdir()
    run.checkpoints.write_text("a file stands here")
    with pytest.raises(EnvironmentLack, match=r"step-4.*--resume"):
        partial_folder(run, 4)


def test_moving_the_run_directory_keeps_its_checkpoints(run):
    save(run, 4)
    shutil.move(run.path, run.path.with_name("moved"))
    assert latest(RunDir(run.path.with_name("moved")))[0].step == 4


def test_the_manifest_lists_what_is_there(run):
    folder = save(run, 4)
    manifest = json.loads((folder / MANIFEST).read_text())
    on_disk = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert on_disk - {MANIFEST} == set(manifest["files"])


def test_a_damaged_checkpoint_does_not_push_out_the_good_ones_that_follow(run: RunDir) -> None:
    save(run, 100)
    flip_a_bit(save(run, 150))
    partial_folder(run, 160)
    found, _ = latest(run)
    assert found is not None
    forget_after(run, found.step)
    save(run, 120, keep=1)
    newest, skipped = latest(run)
    assert newest is not None
    assert (newest.step, skipped) == (120, [])
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-120"]


def test_a_damaged_checkpoint_of_a_later_step_does_not_push_out_the_new_ones(run):
    flip_a_bit(save(run, 40))
    for step in (10, 20):  # begun anew, since nothing was whole
        save(run, step, keep=1)
    assert latest(run)[0].step == 20
    assert not (run.checkpoints / "step-10").exists()


def test_a_run_with_checkpoints_is_not_begun_again_unless_it_goes_on_from_them(run):
    saving = Saving(run, *[None] * 3)
    saving.require_none()
    save(run, 4)
    with pytest.raises(RunDirectoryError, match="holds an unfinished run: go on with --resume"):
        saving.require_none()
