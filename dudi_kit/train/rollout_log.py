"""Some of the student's samples for people to read: `logs/rollouts.jsonl`, a JSON object a line.

Which rows are shown is drawn by (seed, step, row), so that it does not depend on how the batch is split. The log stays
small however long the run is: it is written at 200 steps at most, and long texts are cut.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from dudi_kit.signals.result import SignalResult
from dudi_kit.train.metrics import append_line
from dudi_kit.train.step import Pair

MOST_MOMENTS = 200
"""Steps of a run at which samples are written."""

LONGEST_TEXT = 2000
"""Characters of a prompt, a reference or a sample."""

NUMBER_OF_LOTS = 7919
"""Keeps the lots apart from the numbers that samples are drawn with."""

RowLosses = dict[int, dict[str, float]]
"""Each signal's mean over a row's items, in nats, by the row's index."""


class Shown(NamedTuple):
    """A sample and the lot by which it is shown or not."""

    lot: float
    line: dict[str, Any]


class RolloutLog:
    """Writes samples of rows chosen by lot, the same number in each language."""

    def __init__(self, path: Path, tokenizer: PreTrainedTokenizerBase, *, each: int, seed: int, moments: range) -> None:
        """each: samples of a language at one moment. moments: steps, from 0, at which samples are written."""
        self.path, self.tokenizer = path, tokenizer
        self.each, self.seed, self.moments = each, seed, moments

    def is_due(self, step: int) -> bool:
        """Whether samples of this step are written."""
        return self.each > 0 and step in self.moments

    def write(self, step: int, pairs: Sequence[Pair], losses: RowLosses) -> None:
        """Write some samples of all processes; each of them must call it. losses: of this process's rows."""
        mine = self._drawn([self._shown(step, pair, losses.get(pair.row.index, {})) for pair in pairs])
        everyones: list[list[Shown] | None] = [mine]
        if dist.is_initialized():
            everyones = [None] * dist.get_world_size()
            dist.all_gather_object(everyones, mine)
            if dist.get_rank() != 0:
                return
        self.path.parent.mkdir(exist_ok=True)
        for shown in self._drawn([one for some in everyones for one in some or ()]):
            append_line(self.path, shown.line)

    def _drawn(self, shown: Sequence[Shown]) -> list[Shown]:
        """The first of each language, by their lots."""
        by_language: dict[str, list[Shown]] = defaultdict(list)
        for one in sorted(shown, key=lambda one: one.lot):
            by_language[one.line["language"]].append(one)
        return [one for language in sorted(by_language) for one in by_language[language][: self.each]]

    def _shown(self, step: int, pair: Pair, losses: Mapping[str, float]) -> Shown:
        row, rollout = pair.row, pair.rollout
        assert rollout is not None, "samples are written in steps that sample"
        lot = float(np.random.default_rng((self.seed, step, row.index, NUMBER_OF_LOTS)).random())
        line = {
            "step": step + 1,
            "language": row.language,
            "dataset": row.dataset,
            "row": row.index,
            "prompt": self._text(row.prompt),
            "reference": self._text(row.response),
            "sample": self._text(rollout.ids),
            "tokens": len(rollout.ids),
            "ended": rollout.ended,
            "same_as_reference": rollout.ids == row.response,
            "demonstration": row.shown.get("on_policy", "none"),
            "losses": dict(losses),
        }
        return Shown(lot, line)

    def _text(self, ids: Sequence[int]) -> str:
        """With its special tokens, so that one sees where a turn ends."""
        text = str(self.tokenizer.decode(ids, skip_special_tokens=False))
        return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def moments_of(steps: int, *, every: int, log_every: int) -> range:
    """Steps, from 0, at which samples are written. every: between two samplings; log_every: between logged steps."""
    stride = max(log_every, -(-steps // MOST_MOMENTS))
    return range(0, steps, -(-stride // every) * every)


def row_losses(results: Mapping[str, SignalResult], pairs: Sequence[Pair]) -> RowLosses:
    """What the signals made of each row of a micro-batch."""
    losses: RowLosses = {pair.row.index: {} for pair in pairs}
    for name, result in results.items():
        totals, counts = result.total_B.detach().tolist(), result.count_B.tolist()
        for pair, total, count in zip(pairs, totals, counts, strict=True):
            if count:
                losses[pair.row.index][name] = total / count
    return losses
