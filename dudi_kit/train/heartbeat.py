"""Who stands still? Every process writes down where it is, and looks at what the others wrote.

A process that hangs, is stopped or has lost its machine leaves the others waiting for it in a collective, for ever or
until a library gives up without a name. A thread of each process writes `logs/rank-R.beat` every few seconds; when
nothing has moved for longer than `training.stall_timeout`, every process that still can says which rank it is and
ends. The files lie in the run directory, which all machines share; no clock is compared with another machine's.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

LOOKS = 20
"""Times that the thread looks within the timeout."""


class Beat(NamedTuple):
    """Where a process is."""

    stages: int
    """Entered since its start: the same number in all processes, since all do the same."""

    step: int
    stage: str
    alive: int
    """Goes up while its thread runs, whether the process gets on or not."""


NOTHING = Beat(0, 0, "starting", 0)


@dataclass
class Seen:
    """What one process last knew of another, and when that changed (seconds of its own clock)."""

    beat: Beat
    moved: float
    lived: float

    def update(self, beat: Beat, now: float) -> None:
        """Note what it wrote."""
        if (beat.stages, beat.stage) != (self.beat.stages, self.beat.stage):
            self.moved = now
        if beat.alive != self.beat.alive:
            self.lived = now
        self.beat = beat

    def excuse(self, seconds: float) -> None:
        """The observer itself did not run for so long."""
        self.moved += seconds
        self.lived += seconds


class Heartbeat:
    """While it is entered, watches all processes of a run."""

    def __init__(
        self, logs: Path, rank: int, processes: int, *, timeout: float, stalled: Callable[[str], None]
    ) -> None:
        """timeout: seconds. stalled: called once, in a thread of its own, with who stands still and where."""
        self.logs, self.rank, self.timeout, self.stalled = logs, rank, timeout, stalled
        self.pause = min(timeout / LOOKS, 10.0)
        now = time.monotonic()
        self.seen = {other: Seen(NOTHING, now, now) for other in range(processes)}
        self._mine = NOTHING
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="heartbeat")

    def beat(self, step: int, stage: str) -> None:
        """Enter a stage of a step (counted from 1)."""
        self._mine = self._mine._replace(stages=self._mine.stages + 1, step=step, stage=stage)

    def tell(self, stage: str) -> None:
        """How far it is within a stage: a sign that it gets on, which others need not give as often."""
        self._mine = self._mine._replace(stage=stage)

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        last = time.monotonic()
        alive = 0
        while not self._end.wait(self.pause):
            now = time.monotonic()
            asleep, last = now - last - 2 * self.pause, now
            alive += 1
            self._write(self._mine._replace(alive=alive))
            for rank, seen in self.seen.items():
                if asleep > 0:
                    seen.excuse(asleep)
                seen.update(self._mine._replace(alive=alive) if rank == self.rank else self._read(rank), now)
            if now - self.seen[self.rank].moved > self.timeout:
                self.stalled(verdict(self.seen, now, self.timeout))
                return

    def _write(self, beat: Beat) -> None:
        with suppress(OSError):  # a full disk is told by who needs it
            partial = self._file(self.rank).with_suffix(".partial")
            partial.write_text(json.dumps(beat._asdict()), encoding="utf-8")
            partial.replace(self._file(self.rank))

    def _read(self, rank: int) -> Beat:
        try:
            return Beat(**json.loads(self._file(rank).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return self.seen[rank].beat

    def _file(self, rank: int) -> Path:
        return self.logs / f"rank-{rank}.beat"


def verdict(seen: Mapping[int, Seen], now: float, timeout: float) -> str:
    """Which ranks keep the others waiting: those without a sign of life, else those that have come least far."""
    silent = [rank for rank, one in seen.items() if now - one.lived > timeout / 2]
    furthest = max(one.beat.stages for one in seen.values())
    behind = [rank for rank, one in seen.items() if one.beat.stages < furthest]
    waiting = f"no process has got on for {_duration(timeout)} (training.stall_timeout). "
    if silent:
        what = "without a sign of life: stopped, or on a machine that is gone"
        return waiting + _named(seen, silent, what)
    if behind:
        return waiting + _named(seen, behind, "alive but behind the others")
    return waiting + _named(seen, list(seen), "alive but not getting on")


def _named(seen: Mapping[int, Seen], ranks: list[int], what: str) -> str:
    places = ", ".join(f"{rank} (step {seen[rank].beat.step}, {seen[rank].beat.stage})" for rank in ranks)
    return f"{'Rank' if len(ranks) == 1 else 'Ranks'} {places}: {what}. Go on from the last checkpoint with --resume."


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} seconds"
