"""Checkpoints: whole or not there.

A checkpoint is written beside its place as `.step-N.partial`, described by a manifest with the size and sha256 of
every file, read back from the disk against it, and renamed to `step-N`. So a kill at any moment leaves only complete
ones under the final name, and a file that was damaged later is found and named before anything is loaded from it.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError

from dudi_kit.errors import EnvironmentLack
from dudi_kit.plan.layout import RunDir, write_json

MANIFEST = "manifest.json"


class Checkpoint(NamedTuple):
    """A complete checkpoint."""

    path: Path
    step: int
    """Optimizer steps that were done."""


def partial_folder(run: RunDir, step: int) -> Path:
    """Where the processes write; made empty."""
    folder = run.checkpoints / f".step-{step}.partial"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "state").mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what a full disk raises while state is written into an error that says so."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _cannot_write(folder, error) from error


def publish(
    run: RunDir, partial: Path, step: int, facts: dict[str, Any], keep: int, best: int | None = None
) -> Checkpoint:
    """Describe, flush, read back and rename a written folder, then remove all but the newest `keep` and the best step.

    For one process only. Older ones go when the new one lies on the disk, name and content.
    """
    final = run.checkpoints / f"step-{step}"
    try:
        files = {str(file.relative_to(partial)): _describe(file) for file in _files(partial)}
        write_json(partial / MANIFEST, facts | {"step": step, "files": files})
        for path in (partial, *partial.rglob("*")):
            _flush(path)
        fault = fault_in(partial)
        if fault is not None:
            raise OSError(errno.EIO, f"{fault}, read back after it was written; the disk may be failing")
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)
        _flush(run.checkpoints)
    except OSError as error:
        raise _cannot_write(final, error) from error
    # Newer ones are damaged: they were passed over, and must not push this one out.
    for old in [folder for folder in _by_age(run) if _step_of(folder) <= step][:-keep]:
        if _step_of(old) != best:
            shutil.rmtree(old)
    return Checkpoint(final, step)


def latest(run: RunDir) -> tuple[Checkpoint | None, list[str]]:
    """The newest complete checkpoint, and why newer ones were passed over."""
    skipped: list[str] = []
    for folder in reversed(_by_age(run)):
        fault = fault_in(folder)
        if fault is None:
            return Checkpoint(folder, _step_of(folder)), skipped
        skipped.append(f"{folder.name}: {fault}")
    return None, skipped


def fault_in(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, if anything."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is missing or damaged"
    for name, described in files:
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if _describe(file) != described:
            return f"{name} is damaged: its size or sha256 differs from {MANIFEST}"
    return None


def forget_after(run: RunDir, step: int) -> None:
    """Remove what lies beyond the step that a run goes on from: damaged checkpoints must not push out the new ones."""
    for folder in _by_age(run):
        if _step_of(folder) > step:
            shutil.rmtree(folder)
    for partial in run.checkpoints.glob(".step-*.partial"):
        shutil.rmtree(partial)


def copy_model(checkpoint: Path, to: Path) -> None:
    """The transformers folder that a checkpoint is, without what only a resumed run needs."""
    shutil.copytree(checkpoint, to, ignore=shutil.ignore_patterns("state", MANIFEST))


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What was written beside the weights: lock, processes, …"""
    described: dict[str, Any] = json.loads((checkpoint.path / MANIFEST).read_text(encoding="utf-8"))
    return described


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk; then forget the file's content in memory, so
    that who reads it next reads the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(opened)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _by_age(run: RunDir) -> list[Path]:
    named = (path for path in run.checkpoints.glob("step-*") if path.name.removeprefix("step-").isdecimal())
    return sorted(named, key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _cannot_write(path: Path, error: Exception) -> EnvironmentLack:
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return EnvironmentLack(
        f"can't write checkpoint {path}: {reason}. The checkpoints before it are whole; free some space "
        "and go on with --resume."
    )
