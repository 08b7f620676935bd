"""SIGTERM and SIGINT as a request: the process goes on to where it can save, and stops there.

SIGTERM comes from `kill`, `docker stop`, Slurm's time limit and whoever started the process; SIGINT from Ctrl-C.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from dudi_kit.errors import Exit

TOGETHER = 1.0
"""Seconds within which signals are one request: Slurm signals every process of a step, a terminal every process of a
command, and a launcher passes on what it gets."""

ASKING = (signal.SIGTERM, signal.SIGINT)


def exit_at_once() -> None:
    """What a second request does to a training process; what is half written has another name than what is whole."""
    os._exit(Exit.INTERRUPTED)


class StopRequests:
    """While it is entered, remembers that this process was asked to stop; asked again, it calls `again`."""

    def __init__(self, again: Callable[[], None] = exit_at_once) -> None:
        self.asked: signal.Signals | None = None
        """The signal that asked first."""

        self.insisted = False
        """It was asked again."""

        self._again = again
        self._last = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for asking in ASKING:
                if signal.getsignal(asking) is not signal.SIG_IGN:  # as under nohup, or in a shell's background
                    self._before[asking] = signal.signal(asking, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for asking, handler in self._before.items():
            signal.signal(asking, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        now, before = time.monotonic(), self._last
        self._last = now
        if self.asked is None:
            self.asked = signal.Signals(number)
        elif now - before > TOGETHER:
            self.insisted = True
            self._again()
