"""Where the time of a step goes: a clock that charges every moment to one stage, and one that does nothing.

Stages may lie inside each other; the inner one's time is not the outer one's, so the stages of a step, with "other"
for what is left over, add up to it. Before a stage begins or ends, the clock waits for the GPU, or the stage that
happens to wait would be charged for what others have queued. So a profiled run is a little slower, and computes the
same.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Protocol

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from dudi_kit.console import notice, out
from dudi_kit.errors import Interrupted
from dudi_kit.plan.layout import RunDir, write_text
from dudi_kit.plan.schema import Plan
from dudi_kit.train.profile import Profile, Stage, StepTime, profile_table, summed_up
from dudi_kit.train.system import peak_bytes


class Clock(Protocol):
    """What the step tells about itself."""

    def __call__(self, stage: Stage, shape: Sequence[int] = ()) -> AbstractContextManager[None]:
        """For as long as a stage lasts. shape: of the batch that a model reads in it."""
        ...

    def steps(self, numbers: Iterable[int]) -> Iterator[int]:
        """The same numbers, each for as long as its step lasts. A step that is left does not count."""
        ...

    def turns(self, at: Tensor, before: Stage, after: Stage) -> None:
        """In a backward pass, stage `before` ends and `after` begins when the gradient of `at` is there."""
        ...

    def meet(self) -> None:
        """Wait for the others here, so that what one waits for them is not taken for its own work."""
        ...

    def kept(self, run: RunDir, plan: Plan) -> AbstractContextManager[None]:
        """For as long as training lasts: what was measured is then written down and shown."""
        ...


class NoClock:
    """Measures nothing."""

    _nothing = nullcontext()

    def __call__(self, stage: Stage, shape: Sequence[int] = ()) -> AbstractContextManager[None]:  # noqa: D102 – see Clock
        return self._nothing

    def steps(self, numbers: Iterable[int]) -> Iterator[int]:  # noqa: D102
        return iter(numbers)

    def turns(self, at: Tensor, before: Stage, after: Stage) -> None: ...  # noqa: D102

    def meet(self) -> None: ...  # noqa: D102

    def kept(self, run: RunDir, plan: Plan) -> AbstractContextManager[None]:  # noqa: D102
        return self._nothing


NO_CLOCK = NoClock()


class StepClock:
    """Measures. Every process of a run must have one, or none."""

    def __init__(self, accelerator: Accelerator, now: Callable[[], float] = perf_counter) -> None:
        self.accelerator, self.now = accelerator, now
        self.numbers: list[int] = []
        self.times: list[StepTime] = []
        self.peak_bytes = 0
        self._seconds: dict[Stage, float] = {}
        self._open: list[Stage] = ["other"]
        self._last = now()
        self._shapes = set[tuple[str, ...]]()
        self._new_shapes = False

    @contextmanager
    def __call__(self, stage: Stage, shape: Sequence[int] = ()) -> Generator[None]:  # noqa: D102 – see Clock
        if shape and (seen := (stage, *map(str, shape))) not in self._shapes:
            self._shapes.add(seen)
            self._new_shapes = True
        self._charge()
        self._open.append(stage)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def steps(self, numbers: Iterable[int]) -> Iterator[int]:  # noqa: D102
        for number in numbers:
            self._charge()
            self._seconds, self._new_shapes = {}, False
            yield number
            self._charge()
            self.numbers.append(number + 1)
            self.times.append(StepTime(self._seconds, self._new_shapes))

    def turns(self, at: Tensor, before: Stage, after: Stage) -> None:  # noqa: D102
        def turn(_: Tensor) -> None:
            if self._open[-1] == before:  # else it is another pass over the same graph
                self._charge()
                self._open[-1] = after

        if at.requires_grad:
            at.register_hook(turn)  # type: ignore[no-untyped-call]

    def meet(self) -> None:  # noqa: D102
        with self("waiting"):
            self.accelerator.wait_for_everyone()

    @contextmanager
    def kept(self, run: RunDir, plan: Plan) -> Generator[None]:  # noqa: D102
        try:
            yield
        except Interrupted:  # all processes have agreed to stop
            self._keep(run, plan)
            raise
        self._keep(run, plan)

    def _charge(self) -> None:
        """All time since the last call to the innermost stage."""
        device = self.accelerator.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.peak_bytes = max(self.peak_bytes, peak_bytes(device))
        now = self.now()
        stage = self._open[-1]
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def _keep(self, run: RunDir, plan: Plan) -> None:
        """Every process must call it; the first one writes. All have done the same steps."""
        if not self.times:
            self.accelerator.print(f"{plan.name}: no whole step was done, so there is no profile")
            return
        mine = summed_up(self.accelerator.process_index, self.times, self.peak_bytes)
        ranks = [mine] * plan.processes
        if dist.is_initialized():
            dist.all_gather_object(ranks, mine)
        if not self.accelerator.is_main_process:
            return
        device = self.accelerator.device
        profile = Profile(
            name=plan.name,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            first_step=self.numbers[0],
            last_step=self.numbers[-1],
            ranks=ranks,
        )
        write_text(run.profile, profile.model_dump_json(indent=1) + "\n")
        out.print(profile_table(profile))
        notice(f"profile: {run.profile}")
