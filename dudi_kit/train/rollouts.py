"""ỹ ~ π(·|x): one sample of the student for each prompt, shared by the sequence and the on-policy signal.

The randomness of a rollout depends on (seed, step, row) and nothing else: not on the batch that the row sits in, nor
on the process that samples it. So, up to the rounding of logits that other shapes bring, neither the split into
micro-batches nor the number of processes changes what is learned; a resumed run samples what the uninterrupted one
would have.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from dudi_kit.models.generation import Choose, Continuation, Stops, continue_prompts
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.rollouts import Rollouts
from dudi_kit.signals.result import Sums
from dudi_kit.train.drawing import Draw, Likeliest, Sayable
from dudi_kit.train.metrics import Window
from dudi_kit.train.step import Pair


class Sampler(Protocol):
    """Draws ỹ for each row of a process's share."""

    @property
    def may_be_left(self) -> bool:
        """One process may leave it in the middle, since none waits in it for the others."""
        ...

    @property
    def facts(self) -> Mapping[str, Sequence[float]]:
        """What there is to log about the last samples beside themselves: name → a number for each row."""
        ...

    def sample(self, model: PreTrainedModel, rows: Sequence[Row], step: int) -> list[Continuation]:
        """One continuation of each row's prompt, in the rows' order. Every process calls it in the same steps."""
        ...


class OwnSampler:
    """The training process samples by itself, with transformers."""

    may_be_left = True
    facts: Mapping[str, Sequence[float]] = {}

    def __init__(self, settings: Rollouts, *, stops: Stops, sayable_V: Tensor, seed: int) -> None:
        """sayable_V: bool, the pieces that may be sampled: those that the teacher can read, or that are no padded rows;
        ids beyond its end may not."""
        self.settings = settings
        self.stops = stops
        self.sayable = Sayable(sayable_V)
        self.seed = seed

    def sample(self, model: PreTrainedModel, rows: Sequence[Row], step: int) -> list[Continuation]:
        """One continuation of each row's prompt, in the rows' order; the longest prompts are continued first."""
        made: dict[int, Continuation] = {}
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt), reverse=True)
        size = self.settings.prompts_at_once or max(len(rows), 1)
        for start in range(0, len(order), size):
            part = order[start : start + size]
            made |= zip(part, self._continue(model, [rows[i] for i in part], step), strict=True)
        return [made[i] for i in range(len(rows))]

    def _continue(self, model: PreTrainedModel, rows: Sequence[Row], step: int) -> list[Continuation]:
        return continue_prompts(
            model,
            [row.prompt for row in rows],
            self.stops,
            max_new_tokens=self.settings.max_new_tokens,
            choose=self._choice(rows, step),
        )

    def _choice(self, rows: Sequence[Row], step: int) -> Choose:
        if self.settings.temperature == 0:
            return Likeliest(self.sayable)
        temperature, top_p = self.settings.temperature, self.settings.top_p
        return Draw(self.sayable, self._uniform(rows, step), temperature=temperature, top_p=top_p)

    def _uniform(self, rows: Sequence[Row], step: int) -> Tensor:
        """A uniform number for each row and each new token: [B, max_new_tokens]."""
        numbers = [
            np.random.default_rng((self.seed, step, row.index)).random(self.settings.max_new_tokens) for row in rows
        ]
        return torch.from_numpy(np.stack(numbers))


def observe_sampler(window: Window, rows: Sequence[Row], facts: Mapping[str, Sequence[float]]) -> None:
    """What the sampler has to say beside the samples."""
    for name, values in facts.items():
        sums = Sums(torch.tensor(values, dtype=torch.float64), torch.ones(len(rows)))
        window.add(f"rollout.{name}", sums, [row.language for row in rows])


def observe_rollouts(window: Window, pairs: Sequence[Pair]) -> None:
    """Length, truncation and sameness of the samples: a student that babbles or parrots shows here first."""
    sampled = [(pair, pair.rollout) for pair in pairs if pair.rollout]
    if not sampled:
        return
    languages = [pair.row.language for pair, _ in sampled]
    one = torch.ones(len(sampled))
    facts = {
        "tokens": [len(rollout.ids) for _, rollout in sampled],
        "truncated": [not rollout.ended for _, rollout in sampled],
        "same_as_reference": [rollout.ids == pair.row.response for pair, rollout in sampled],
    }
    for name, values in facts.items():
        window.add(f"rollout.{name}", Sums(torch.tensor(values, dtype=torch.float64), one), languages)
