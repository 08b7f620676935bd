"""`python -m MODULE …` without its imports, which are four of the five seconds of a run as small as those of the tests.

The standard library's fork server imports once what a training process imports before it reads its run directory; each
process is forked from it and runs the module as `__main__`, with a log, a session and an environment of its own, and
can be killed like any other. They have one seed of Python's hashes in common. What is about how processes begin
(launchers, `dudi-kit train`) starts cold ones.
"""

import os
import runpy
import sys
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

from dudi_kit.train.processes import free_port, rank_variables

IMPORTS = ["dudi_kit.pipeline.during", "dudi_kit.train.worker"]
_CONTEXT = get_context("forkserver")


def import_once(environment: dict[str, str]) -> None:
    """Start the server, whose libraries read their variables while they are imported. Once, before any thread."""
    _CONTEXT.set_forkserver_preload(IMPORTS)
    with patch.dict(os.environ, environment):
        forkserver.ensure_running()


def start(words: list[str], processes: int, log: Path, environment: dict[str, str]) -> list[BaseProcess]:
    """One process for each rank. words: after `python -m`. All write into one log."""
    log.write_text("")
    port = free_port()
    started = []
    for rank in range(processes):
        of_rank = environment | (rank_variables(rank, processes, port) if processes > 1 else {})
        # Daemons are ended when the session of tests is over.
        process = _CONTEXT.Process(target=_run, args=(words, log, of_rank), daemon=True)
        process.start()
        started.append(process)
    return started


def _run(words: list[str], log: Path, environment: dict[str, str]) -> None:
    """The child: what `python -m` would do, its output into the log."""
    os.setsid()
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words[:]
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
