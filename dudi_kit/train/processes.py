"""The training processes of one machine: started together, watched, asked to stop, and ended together."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from dudi_kit.errors import Exit
from dudi_kit.train.stopping import StopRequests

LAUNCHER = "DUDI_KIT_LAUNCHER"
"""Environment variable with the process id of the `dudi-kit` that started a training process."""

GRACE = 15.0
"""Seconds that the other processes have to end by themselves once one has failed: time to say why."""

LOOK_EVERY = 0.1
PR_SET_PDEATHSIG = 1


class Ended(NamedTuple):
    """How a process ended, in the order in which they did."""

    rank: int
    code: int
    """Exit code; that of a signal is negative."""

    by_us: bool
    """It was killed because another one had failed, or the user would not wait."""


def run_together(worker: Sequence[str], processes: int) -> tuple[list[Ended], signal.Signals | None]:
    """Start `python …worker` as so many ranks and wait until all have ended; also the signal that asked us to stop.

    A request to stop is passed on once; at the second one, all are killed. When one has failed, those that do not end
    by themselves are killed after `GRACE` seconds.
    """
    port = free_port()
    started: list[subprocess.Popen[bytes]] = []

    def kill_all() -> None:
        for process in started:
            process.kill()

    with StopRequests(again=kill_all) as stop:
        try:
            for rank in range(processes):
                environment = _environment(rank, processes, port)
                started.append(subprocess.Popen([sys.executable, *worker], env=environment))  # noqa: S603 – our own module, no shell
            return _attend(started, stop), stop.asked
        finally:
            kill_all()


def die_with_launcher() -> None:
    """Called in a training process: if the `dudi-kit` that started it is killed, the kernel kills it, too.

    Otherwise it would train on with nobody to read it, and hold the run directory.
    """
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):  # it died while we were starting
        os._exit(Exit.INTERRUPTED)


def _attend(processes: Sequence[subprocess.Popen[bytes]], stop: StopRequests) -> list[Ended]:
    running, ended = dict(enumerate(processes)), list[Ended]()
    deadline, told, killed = float("inf"), False, False
    while running:
        for rank, process in list(running.items()):
            code = process.poll()
            if code is not None:
                ended.append(Ended(rank, code, by_us=killed or stop.insisted))
                del running[rank]
        if stop.asked and not told:
            told = True
            for process in running.values():
                process.send_signal(stop.asked)
        if deadline == float("inf") and any(end.code for end in ended):
            deadline = time.monotonic() + GRACE
        if time.monotonic() > deadline and not killed:
            killed = True
            for process in running.values():
                process.kill()
        time.sleep(LOOK_EVERY if running else 0)
    return ended


def rank_variables(rank: int, processes: int, port: int) -> dict[str, str]:
    """What tells a process of one machine which it is, and where the others meet it."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    """One of this machine on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _environment(rank: int, processes: int, port: int) -> dict[str, str]:
    threads = max((os.cpu_count() or 1) // processes, 1)
    ours = {LAUNCHER: str(os.getpid())} | rank_variables(rank, processes, port)
    return {"OMP_NUM_THREADS": str(threads), **os.environ, **ours}
