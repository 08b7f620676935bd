"""Starts the training processes of one machine and waits for them."""

import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dudi_kit.errors import DudiError, Exit, Interrupted, WorkerFailed
from dudi_kit.plan.engine import worker_command
from dudi_kit.plan.layout import RunDir
from dudi_kit.train.processes import Ended, run_together
from dudi_kit.train.stopping import ASKING

LOST = "lost the other processes"
"""Begins the report of a process that stumbled over the end of another."""


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


def start_training(run: RunDir, processes: int, *, resume: bool, profile: bool = False) -> None:
    """Train a planned run directory in processes of their own. profile: measure where the time goes.

    Raises Interrupted where it was asked to stop, with what was saved; else an error with the exit code of the process
    that failed first; WorkerFailed where it died without a word.
    """
    for old in (*run.logs.glob("rank-*.log"), *run.logs.glob("rank-*.beat")):
        old.unlink()
    ended, asked = run_together(worker_command(str(run.path), resume=resume, profile=profile), processes)
    failed = [end for end in ended if end.code]
    if not failed:
        return
    reports = [_read_report(log) for log in sorted(run.logs.glob("rank-*.log"))]
    stopped = next((report for report in reports if report.code == Exit.INTERRUPTED), None)
    if reason := _reason(run, failed, reports, asked=asked is not None):
        raise reason
    by = asked or signal.SIGTERM
    raise Interrupted(stopped.text if stopped else f"stopped by {by.name}; {_way_on(run)} ({run.path})")


def wait_for(command: list[str]) -> int:
    """Exit code of a process of ours. KeyboardInterrupt only when it has ended, too."""
    with _terminated_as_interrupted(), subprocess.Popen(command) as process:  # noqa: S603 – our own module, no shell
        try:
            return process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM (Slurm, docker stop, timeout) ends us as Ctrl-C does, or the process would go on alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    """A terminal's Ctrl-C reaches the process too; a second signal would cut what it has to say."""
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()


def _way_on(run: RunDir) -> str:
    whole = any(run.checkpoints.glob("step-*"))
    return "go on from the last checkpoint with --resume" if whole else "there is no checkpoint yet: start again"


def _reason(run: RunDir, failed: Sequence[Ended], reports: Sequence[_Report], *, asked: bool) -> DudiError | None:
    """Why training failed; None where it was asked to stop and nothing but that made it end.

    A process that loses its peers stumbles over the broken connection, as a bug or by name: that is the reason only
    where there is no other.
    """
    own = [r for r in reports if r.code not in (Exit.BUG, Exit.INTERRUPTED) and not r.text.startswith(LOST)]
    if own:
        return _stopped(own)
    unasked = [
        end for end in failed if not (end.by_us or end.code == Exit.INTERRUPTED or (asked and -end.code in ASKING))
    ]
    killed = [end for end in unasked if end.code < 0]
    if killed:
        return _wordless(run, killed[0])
    bugs = [r for r in reports if r.code == Exit.BUG]
    if bugs:
        return _stopped(bugs)
    if asked or not unasked:
        return None
    lost = [r for r in reports if r.code != Exit.INTERRUPTED]
    return _stopped(lost) if lost else _wordless(run, unasked[0])


def _stopped(reports: Sequence[_Report]) -> TrainingStopped:
    """Ranks that say the same are named together."""
    ranks: dict[str, list[str]] = {}
    for report in reports:
        ranks.setdefault(report.text, []).append(report.rank)
    lines = [f"rank {' and '.join(of)}: {text}" for text, of in ranks.items()]
    return TrainingStopped("training stopped. " + "\n".join(lines), reports[0].code)


def _wordless(run: RunDir, end: Ended) -> WorkerFailed:
    how = f"was killed by {signal.Signals(-end.code).name}" if end.code < 0 else f"ended with exit code {end.code}"
    return WorkerFailed(
        f"rank {end.rank} {how} without a word; its output is above. Out of memory shows as SIGKILL: lower "
        f"training.micro_batch_size. Then {_way_on(run)} ({run.path})."
    )


def _read_report(log: Path) -> _Report:
    """What `worker` wrote: the exit code, which torchrun does not pass on, in the first line, then the reason."""
    code, _, text = log.read_text(encoding="utf-8").partition("\n")
    known = Exit(int(code)) if code.isdigit() else Exit.ENVIRONMENT  # a full disk cuts this file, too
    return _Report(log.stem.removeprefix("rank-"), known, text.strip())
