"""Whose run directory is it? Nothing is written into a folder that holds something else; nothing old passes for new."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dudi_kit.errors import EnvironmentLack, RunDirectoryError
from dudi_kit.plan.chain import Stage
from dudi_kit.plan.layout import RunDir, read_lock


@dataclass(frozen=True)
class Settings:
    """How the stages of a chain are built."""

    processes: int
    resume: bool
    overwrite: bool
    profile: bool = False
    """Measure where the time of a step goes."""


def check_folder(stage: Stage, settings: Settings) -> None:
    """Refuse a directory that holds something else, or an unfinished run that the user did not ask to resume."""
    run = stage.run
    if run.path.is_symlink():
        raise RunDirectoryError(
            f"{run.path} is a link to {run.path.resolve()}: nothing is written through it. Remove it, or name the "
            "folder above it with --output."
        )
    if not run.path.exists() or not any(run.path.iterdir()) or (settings.overwrite and run.lock.exists()):
        return
    if not run.lock.exists():
        raise RunDirectoryError(
            f"{run.path} is no run directory of dudi-kit and is not empty; choose another --output or --name."
        )
    found = read_lock(run)
    if found is None:
        raise RunDirectoryError(
            f"{run.lock} can't be read, so nothing tells whose run this is. Choose another --output or --name=…, or "
            "remove the folder with --overwrite."
        )
    if found != stage.lock and _has_begun(run):
        raise RunDirectoryError(
            f"{run.path} holds a run of other settings or other data (lock {found[:8]}, this recipe has "
            f"{stage.lock[:8]}{differences(stage)}). Give this one another name with --name=…, or "
            "remove the old one with --overwrite."
        )
    if found == stage.lock and run.checkpoints.is_dir() and not settings.resume:
        raise RunDirectoryError(
            f"{run.path} holds an unfinished run of this recipe: go on with --resume, or start again with --overwrite."
        )


def claim(stage: Stage, settings: Settings) -> bool:
    """Make a directory that `check_folder` let pass this stage's own; whether to go on from its checkpoints."""
    run = stage.run
    if run.lock.exists() and read_lock(run) != stage.lock:
        # The plan of a recipe that has changed since: none of it may be taken for the new one's.
        for old in (run.plan, run.asked, run.requests, run.pruning):
            old.unlink(missing_ok=True)
        for folder in (run.tokenizer, run.pruned):
            shutil.rmtree(folder, ignore_errors=True)
    return settings.resume and _has_begun(run)


@contextmanager
def replacing(stage: Stage, settings: Settings) -> Iterator[None]:
    """`--overwrite`: the old run is set aside while the new one is planned, and comes back if that fails."""
    run = stage.run.path
    aside = run.with_name(f".{run.name}.replaced")
    if not (settings.overwrite and stage.run.lock.exists()):
        yield
        return
    shutil.rmtree(aside, ignore_errors=True)
    run.rename(aside)
    try:
        yield
    except BaseException:
        shutil.rmtree(run, ignore_errors=True)
        aside.rename(run)
        raise
    shutil.rmtree(aside)


def differences(stage: Stage) -> str:
    """The first settings in which a stage differs from what its run directory was made with, for messages."""
    try:
        found = json.loads(stage.run.lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    paths = sorted(_differing(found, {**found, **stage.depends_on}))
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"; they differ in {', '.join(paths[:3])}{more}" if paths else ""


def _differing(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differing(old.get(key), new.get(key), (*path, str(key)))
    elif old != new:
        yield ".".join(path).removeprefix("settings.")


def _has_begun(run: RunDir) -> bool:
    """Whether training has left something; a directory that holds a plan alone may be planned anew."""
    return any(path.exists() for path in (run.metrics, run.checkpoints, run.final))


def is_trained(stage: Stage) -> bool:
    """The stage's run directory holds its finished student."""
    return stage.run.complete() and read_lock(stage.run) == stage.lock


@contextmanager
def sole_trainer(run: RunDir) -> Iterator[None]:
    """Held by the first training process itself: it may outlive the `dudi-kit` that started it, if that is killed."""
    with (run.path / ".training").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise RunDirectoryError(
                f"process {file.read().strip() or '?'} is still training in {run.path}, although what started it is "
                "gone. Wait for it, or end it, and go on with --resume."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def exclusive(run: RunDir, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a run directory alone while it is planned and trained: recipes that share a teacher must not both build it.

    waiting: called if another process holds it. The lock lies beside the directory, which `--overwrite` removes, and
    the kernel lets go of it when a process dies, however it dies.
    """
    path = run.path.parent / f".{run.path.name}.busy"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path, waiting)
    except OSError as error:
        raise EnvironmentLack(f"can't write in {path.parent}: {error.strerror or error}") from error
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path, waiting: Callable[[], None]) -> TextIO:
    """The open file at `path`, locked. Its last holder may remove it while we wait: then the lock is on nothing."""
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()
