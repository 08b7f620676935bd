"""What a run in a process has to do with the world around it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from dudi_kit.train.agreement import Agree
from dudi_kit.train.clock import Clock
from dudi_kit.train.during import Watch
from dudi_kit.train.heartbeat import Heartbeat
from dudi_kit.train.saving import Saving
from dudi_kit.train.stopping import StopRequests
from dudi_kit.train.trackers import Trackers

Progress = Callable[[int, dict[str, Any] | None], None]
"""Called after each step with the number of steps done, and with the logged line where there is one."""


class Surroundings(NamedTuple):
    """Handed to the loop by whoever starts the process."""

    saving: Saving
    progress: Progress
    heartbeat: Heartbeat
    stop: StopRequests
    agree: Agree
    trackers: Trackers
    watch: Watch | None
    """Scores the student now and then, where the recipe asks for it."""

    clock: Clock
