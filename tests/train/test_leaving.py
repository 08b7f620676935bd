"""A step that is left in the middle leaves nothing behind."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dudi_kit.errors import Interrupted
from dudi_kit.plan.layout import RunDir
from dudi_kit.train.clock import NO_CLOCK
from dudi_kit.train.loop import Loop, _LeftStep


class LeftInItsSecondStep(Loop):
    """Each step draws as dropout does. It is saved what would be drawn next."""

    saved: Any = None

    def _step(self, step: int) -> None:
        torch.rand(5)
        if step == 1:
            raise _LeftStep

    def _save(self, done: int) -> None:
        self.saved = (done, torch.rand(5))

    def _asked_to_stop(self) -> bool:
        return False

    def _refresh_reference(self, step: int) -> None: ...

    def _log(self, done: int) -> dict[str, Any]:
        return {}


def test_a_step_that_was_left_draws_the_same_again_when_it_is_resumed() -> None:
    stop = SimpleNamespace(asked=None)
    surroundings = SimpleNamespace(progress=lambda *_: None, stop=stop, watch=None, clock=NO_CLOCK)
    loop = LeftInItsSecondStep.__new__(LeftInItsSecondStep)
    loop.accelerator = SimpleNamespace(is_main_process=False)
    loop.plan, loop.around, loop.window = SimpleNamespace(steps=9), surroundings, None
    loop.recipe = SimpleNamespace(training=SimpleNamespace(log_every=1, checkpoint_every=None))
    loop.run = RunDir(Path("run"))
    torch.manual_seed(4)
    with pytest.raises(Interrupted):
        loop.train(0)
    torch.manual_seed(4)
    torch.rand(5)
    assert loop.saved[0] == 1
    assert torch.equal(loop.saved[1], torch.rand(5))
