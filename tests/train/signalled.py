"""A training process that is sent SIGTERM in a given moment: `python -m tests.train.signalled RUN MOMENT STEP`.

MOMENT is `generation` (between two tokens), `backward` (before the gradient of a micro-batch), `save` (between the
files and the manifest) or `evaluation` (as the student is asked; STEP counts the scorings). The process is asked to
stop as by `docker stop`; all else is the real thing.
"""

import os
import signal
import sys
from typing import Any

from dudi_kit.evaluate import during
from dudi_kit.pipeline.during import make_scorer
from dudi_kit.train import checkpoints, drawing, loop, worker


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def in_generation(step: int) -> None:
    real = drawing.Draw.__call__
    steps: list[Any] = []

    def call(self: Any, logits_bV: Any, row_b: Any, position: int) -> Any:
        if self not in steps:
            steps.append(self)  # one for each step of this process
        if len(steps) == step and position == 2:
            ask()
        return real(self, logits_bV, row_b, position)

    drawing.Draw.__call__ = call  # type: ignore[method-assign]


def in_backward(step: int) -> None:
    real, steps = loop.backward, [0]

    def backward(engine: Any, loss: Any, *, last: bool, **others: Any) -> Any:
        if steps[0] == step - 1 and not last:
            ask()
        steps[0] += last
        return real(engine, loss, last=last, **others)

    loop.backward = backward  # type: ignore[assignment]


def in_save(step: int) -> None:
    real = checkpoints.publish

    def publish(run: Any, partial: Any, done: int, *others: Any) -> Any:
        if done == step:
            ask()
        return real(run, partial, done, *others)

    checkpoints.publish = publish


def in_evaluation(scoring: int) -> None:
    real, scorings = during.answer_task, [0]

    def answer(*arguments: Any) -> Any:
        scorings[0] += 1
        if scorings[0] == scoring:
            ask()
        return real(*arguments)

    during.answer_task = answer


MOMENTS = {"generation": in_generation, "backward": in_backward, "save": in_save, "evaluation": in_evaluation}

if __name__ == "__main__":
    folder, moment, number, *options = sys.argv[1:]
    MOMENTS[moment](int(number))
    sys.exit(worker.main([folder, *options], make_scorer))
