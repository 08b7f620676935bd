"""Starts the training processes of one machine and waits for them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dudi_kit.errors import DudiError, Exit, Interrupted, WorkerFailed
from dudi_kit.plan.engine import launch_command
from dudi_kit.plan.layout import RunDir


class _Report(NamedTuple):
    """Why a process ended."""

    rank: str
    code: Exit
    text: str


class TrainingStopped(DudiError):
    """A training process has already said on stderr why it ended."""

    def __init__(self, text: str, code: Exit) -> None:
        super().__init__(text)
        self.exit_code = code


def start_training(run: RunDir, processes: int, *, resume: bool) -> None:
    """Train a planned run directory in processes of their own.

    Raises an error with the exit code of the process that failed first; WorkerFailed where it died without a word.
    """
    for old in run.logs.glob("rank-*.log"):
        old.unlink()
    command = [sys.executable, *launch_command(processes, str(run.path), resume=resume)]
    threads = max((os.cpu_count() or 1) // processes, 1)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    try:
        code = wait_for(command, environment)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {_way_on(run)} ({run.path})") from None
    if code:
        raise _failure(run, code)


def wait_for(command: list[str], environment: Mapping[str, str] | None = None) -> int:
    """Exit code of a process of ours. KeyboardInterrupt only when it has ended, too."""
    with _terminated_as_interrupted(), subprocess.Popen(command, env=environment) as process:  # noqa: S603 – our own module, no shell
        try:
            return process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM (Slurm, docker stop, timeout) ends us as Ctrl-C does, or the training processes would go on alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    """A terminal's Ctrl-C reaches the training processes too; a second signal would cut what they have to say."""
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()


def _way_on(run: RunDir) -> str:
    whole = any(run.checkpoints.glob("step-*"))
    return "go on from the last checkpoint with --resume" if whole else "there is no checkpoint yet: start again"


def _failure(run: RunDir, code: int) -> DudiError:
    reports = [_read_report(log) for log in sorted(run.logs.glob("rank-*.log"))]
    # A process that loses its peers stumbles over the broken connection: that is not the reason.
    reasons = [report for report in reports if report.code != Exit.BUG] or reports
    if reasons:
        text = "\n".join(f"rank {report.rank}: {report.text}" for report in reasons)
        return TrainingStopped(f"training stopped. {text}", reasons[0].code)
    reason = f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return WorkerFailed(
        f"the training process {reason} without a word; its output is above. Out of memory shows as SIGKILL: lower "
        f"training.micro_batch_size. Then {_way_on(run)} ({run.path})."
    )


def _read_report(log: Path) -> _Report:
    """What `worker` wrote: the exit code, which torchrun does not pass on, in the first line, then the reason."""
    code, _, text = log.read_text(encoding="utf-8").partition("\n")
    known = Exit(int(code)) if code.isdigit() else Exit.ENVIRONMENT  # a full disk cuts this file, too
    return _Report(log.stem.removeprefix("rank-"), known, text.strip())
