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
from transformers import LogitsProcessor, PreTrainedModel, TopPLogitsWarper

from dudi_kit.models.generation import Continuation, Stops, continue_prompts
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.rollouts import Rollouts
from dudi_kit.signals.result import Sums
from dudi_kit.train.determinism import running_sum
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
        self.sayable_V = sayable_V
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
            processors=self._processors(rows, step),
        )

    def _processors(self, rows: Sequence[Row], step: int) -> list[LogitsProcessor]:
        allowed = [Only(self.sayable_V)]
        if self.settings.temperature == 0:
            return allowed
        nucleus = [TopPLogitsWarper(self.settings.top_p)] if self.settings.top_p < 1 else []
        return [*allowed, Temperature(self.settings.temperature), *nucleus, DrawByRow(self._uniform(rows, step))]

    def _uniform(self, rows: Sequence[Row], step: int) -> Tensor:
        """A uniform number for each row and each new token: [B, max_new_tokens]."""
        numbers = [
            np.random.default_rng((self.seed, step, row.index)).random(self.settings.max_new_tokens) for row in rows
        ]
        return torch.from_numpy(np.stack(numbers))


class Only(LogitsProcessor):
    """Never say a piece that the teacher can't read, nor a padded row."""

    def __init__(self, sayable_V: Tensor) -> None:
        self.never = (~sayable_V).nonzero().squeeze(-1)
        self.known = len(sayable_V)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: D102 – transformers' interface
        inside = self.never[self.never < scores.shape[1]]
        beyond = torch.arange(min(self.known, scores.shape[1]), scores.shape[1])
        return scores.index_fill(1, torch.cat([inside, beyond]).to(scores.device), -torch.inf)


class Temperature(LogitsProcessor):
    """Divide the logits; in fp32, since a probability is made of them next."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: D102 – transformers' interface
        return scores.float() / self.temperature


class DrawByRow(LogitsProcessor):
    """Sampling by inversion: the first piece at which the cumulated probability passes the row's uniform number.

    All mass is then put on that piece, so that the greedy choice that follows is the sample.
    """

    def __init__(self, uniform_BN: Tensor) -> None:
        self.uniform_BN = uniform_BN
        self.position = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: D102 – transformers' interface
        cumulated_BV = running_sum(scores.softmax(-1))
        uniform_B1 = self.uniform_BN[:, self.position, None].to(scores.device) * cumulated_BV[:, -1:]
        self.position += 1
        chosen_B1 = torch.searchsorted(cumulated_BV, uniform_B1, right=True).clamp_(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen_B1, 0.0)


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
