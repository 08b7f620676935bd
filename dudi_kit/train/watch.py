"""Numbers that mean that training has failed: the rows are saved, and the step, signal and language are said."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dudi_kit.errors import TrainingFailed
from dudi_kit.plan.layout import write_text
from dudi_kit.signals.result import SignalResult, Sums
from dudi_kit.train.step import Pair

NAMED = 3
"""As many rows are named in a message; all of them stand in the file."""


class Judged(NamedTuple):
    """A row of the step, and what each signal said about it."""

    pair: Pair
    micro_batch: int
    """The how many-th of its process, from 0."""

    losses: dict[str, tuple[float, int]]
    """Signal → sum in nats over its valid items, and their number."""

    @property
    def broken(self) -> list[str]:
        """Signals whose loss of this row is NaN or infinite."""
        return [name for name, (total, _) in self.losses.items() if not math.isfinite(total)]


class StepRecord:
    """Rows of the current step with their losses, which stay on the device until somebody asks."""

    def __init__(self) -> None:
        self._parts: list[tuple[Sequence[Pair], dict[str, Sums]]] = []

    def clear(self) -> None:
        """A new step begins."""
        self._parts = []

    def add(self, pairs: Sequence[Pair], results: Mapping[str, SignalResult]) -> None:
        """One micro-batch."""
        sums = {name: Sums(result.total_B.detach(), result.count_B) for name, result in results.items()}
        self._parts.append((pairs, sums))

    def total(self) -> Tensor:
        """A number that is not finite where some row's loss is not; without waiting for the device."""
        return torch.stack([sums.total_B.sum().double() for _, part in self._parts for sums in part.values()]).sum()

    def rows(self) -> Iterator[Judged]:
        """Every row of this process."""
        for number, (pairs, sums) in enumerate(self._parts):
            read = {name: (each.total_B.tolist(), each.count_B.tolist()) for name, each in sums.items()}
            for i, pair in enumerate(pairs):
                losses = {name: (totals[i], counts[i]) for name, (totals, counts) in read.items()}
                yield Judged(pair, number, losses)


@dataclass(frozen=True)
class Moment:
    """When and where something failed."""

    step: int
    """Optimizer steps, this one included."""

    rank: int
    seed: int


def save_failure(path: Path, moment: Moment, rows: Sequence[Judged], tokenizer: PreTrainedTokenizerBase) -> None:
    """Write this process's rows of a step as JSON lines, those whose loss is no number first."""
    ordered = sorted(rows, key=lambda judged: not judged.broken)
    lines = [json.dumps(_told(moment, judged, tokenizer), ensure_ascii=False) for judged in ordered]
    write_text(path, "".join(f"{line}\n" for line in lines))


def failure(norm: float, line: Mapping[str, Any], rows: Sequence[Judged], path: Path) -> TrainingFailed:
    """What to raise where a loss or gradient is no number. line: the metrics up to this step. rows: this process's."""
    what = f"the loss is {line['loss']} at step {line['step']}{_culprits(line)}"
    if math.isfinite(line["loss"]):
        what = f"the gradient norm is {norm} at step {line['step']}, although the loss is {line['loss']:.4g}"
    applied = "" if math.isfinite(norm) else " The step was not applied."
    return TrainingFailed(
        f"{what}.{applied} {_named(rows)} {path} has this process's rows; `dudi-kit failure {path}` "
        "shows them. Leave out the rows if they are at fault; else lower training.learning_rate or "
        "training.max_grad_norm, or use training.precision: fp32. Then go on from the last checkpoint with --resume, "
        "or start again."
    )


def _culprits(line: Mapping[str, Any]) -> str:
    """Which signals in which languages are no number over all processes since the last logged line."""
    broken = {name: signal for name, signal in line["signals"].items() if not math.isfinite(signal["loss"])}
    told = [f"{name} ({', '.join(_not_finite(signal['by_language']))})" for name, signal in broken.items()]
    return f", from {'; '.join(told)}" if told else ""


def _named(rows: Sequence[Judged]) -> str:
    broken = [judged for judged in rows if judged.broken]
    if not broken:
        return "None of this process's rows has a loss that is no number."
    named = [f"row {j.pair.row.index} ({j.pair.row.language}: {', '.join(j.broken)})" for j in broken[:NAMED]]
    more = f" and {len(broken) - NAMED:,} more" if len(broken) > NAMED else ""
    return f"Not finite of this process's {len(rows):,} rows: {', '.join(named)}{more}."


def _told(moment: Moment, judged: Judged, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    row, rollout = judged.pair.row, judged.pair.rollout
    return {
        "step": moment.step,
        "rank": moment.rank,
        "micro_batch": judged.micro_batch,
        "seed": moment.seed,
        "row": row.index,
        "dataset": row.dataset,
        "language": row.language,
        "not_finite": judged.broken,
        "losses": {name: {"sum": _json(total), "count": count} for name, (total, count) in judged.losses.items()},
        "prompt": tokenizer.decode(row.prompt),
        "response": tokenizer.decode(row.response),
        "rollout": tokenizer.decode(rollout.ids) if rollout else None,
        "prompt_ids": row.prompt,
        "response_ids": row.response,
        "rollout_ids": rollout.ids if rollout else None,
    }


def _json(value: float) -> float | str:
    """JSON has no NaN."""
    return value if math.isfinite(value) else str(value)


def _not_finite(by_language: Mapping[str, float]) -> list[str]:
    return [code for code, loss in by_language.items() if not math.isfinite(loss)]
