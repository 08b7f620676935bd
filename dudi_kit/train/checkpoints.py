"""Checkpoints: whole or not there.

A checkpoint is written beside its place as `.step-N.partial`, described by a manifest with the size and sha256 of
every file, and renamed to `step-N`. So a kill at any moment leaves only complete ones under the final name, and a file
that was damaged later is found and named before anything is loaded from it.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch.serialization import get_unsafe_globals_in_checkpoint

from dudi_kit.errors import EnvironmentLack, RunDirectoryError
from dudi_kit.plan.layout import RunDir, write_json

MANIFEST = "manifest.json"

PICKLED = (".pt", ".pth", ".bin", ".pkl", ".ckpt")

HARMLESS = re.compile(
    r"numpy\.(ndarray|dtype|dtypes\.\w+|_?core\.multiarray\.(_reconstruct|scalar))"
    r"|deepspeed\.(runtime|utils)(\.[a-z0-9_]+)+\.[A-Z]\w*|deepspeed\.utils\.tensor_fragment\.fragment_address"
)
"""What honest state is made of besides tensors: arrays, and DeepSpeed's own small classes."""


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
        folder.mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what a full disk raises while state is written into an error that says so."""
    try:
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _cannot_write(folder, error) from error
    except RuntimeError as error:
        # torch's own writer of zip files loses the reason: "[enforce fail at inline_container.cc:672] unexpected pos".
        if not any(words in str(error) for words in ("inline_container", "PytorchStreamWriter", "iostream")):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        raise _cannot_write(folder, OSError(0, "torch could not write all of a file; is the disk full?")) from error


def publish(run: RunDir, partial: Path, step: int, facts: dict[str, Any], keep: int) -> Checkpoint:
    """Describe, flush and rename a written folder, then remove all but the newest `keep`. For one process only."""
    final = run.checkpoints / f"step-{step}"
    try:
        files = {str(file.relative_to(partial)): _describe(file) for file in _files(partial)}
        write_json(partial / MANIFEST, facts | {"step": step, "files": files})
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)
    except OSError as error:
        raise _cannot_write(final, error) from error
    for old in _by_age(run)[:-keep]:
        shutil.rmtree(old)
    return Checkpoint(final, step)


def latest(run: RunDir) -> tuple[Checkpoint | None, list[str]]:
    """The newest complete checkpoint, and why newer ones were passed over."""
    skipped: list[str] = []
    for folder in reversed(_by_age(run)):
        fault = _fault(folder)
        if fault is None:
            return Checkpoint(folder, _step_of(folder)), skipped
        skipped.append(f"{folder.name}: {fault}")
    return None, skipped


def forget_after(run: RunDir, step: int) -> None:
    """Remove what lies beyond the step that a run goes on from: damaged checkpoints must not push out the new ones."""
    for folder in _by_age(run):
        if _step_of(folder) > step:
            shutil.rmtree(folder)
    for partial in run.checkpoints.glob(".step-*.partial"):
        shutil.rmtree(partial)


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What was written beside the weights: lock, processes, …"""
    described: dict[str, Any] = json.loads((checkpoint.path / MANIFEST).read_text(encoding="utf-8"))
    return described


def require_harmless(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that would do more than hold state.

    DeepSpeed unpickles optimizer state with all of pickle's power, and a run directory may be somebody else's, with
    a manifest that fits. What the files would call is read from them without calling it.
    """
    for file in _files(checkpoint.path):
        if file.suffix not in PICKLED:
            continue
        try:
            names = [name for name in get_unsafe_globals_in_checkpoint(file) if not HARMLESS.fullmatch(name)]
        except Exception as error:
            raise RunDirectoryError(f"{file} is no file that torch wrote: {error}. {_mend(checkpoint)}") from error
        if names:
            raise RunDirectoryError(f"{file} would run code when it is loaded ({names[0]}). {_mend(checkpoint)}")


def _mend(checkpoint: Checkpoint) -> str:
    return f"If this run came from elsewhere, don't trust it; else remove {checkpoint.path} and --resume before it."


def _fault(folder: Path) -> str | None:
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


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        os.fsync(opened.fileno())
    return {"bytes": file.stat().st_size, "sha256": digest}


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
