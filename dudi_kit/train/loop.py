"""The loop: which rows, sample, count, forward and backward, step, log, save.

Everything that a step depends on is a function of its number: the rows, the learning rate and the rollouts' random
numbers. So a resumed run needs weights and optimizer state only, and does what the uninterrupted run would have done.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from dudi_kit.data.mixing import Mixture
from dudi_kit.errors import RunDirectoryError, TrainingFailed
from dudi_kit.models.reference import refresh
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.rows import Row
from dudi_kit.plan.schema import Plan
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.signals import RefreshedReference
from dudi_kit.signals.objective import combine
from dudi_kit.signals.result import Sums
from dudi_kit.train import checkpoints
from dudi_kit.train.engine import backward, set_learning_rate
from dudi_kit.train.metrics import Window, append_line, cut_after
from dudi_kit.train.rollouts import Sampler
from dudi_kit.train.schedule import learning_rate
from dudi_kit.train.step import Models, Objective, Pair

Progress = Callable[[int, dict[str, Any] | None], None]
"""Called after each step with the number of steps done, and with the logged line where there is one."""


@dataclass
class Loop:
    """A training run inside one process."""

    run: RunDir
    recipe: Recipe
    plan: Plan
    accelerator: Accelerator
    models: Models
    """With the student already prepared by the accelerator."""

    optimizer: Any
    objective: Objective
    sampler: Sampler
    rows: list[Row]
    mixture: Mixture
    progress: Progress
    grad_norm: float | None = None
    """Of the last step, before clipping."""

    tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.window = Window(sorted(self.plan.languages), self.accelerator.device)

    def train(self, first_step: int) -> None:
        """From `first_step` to the plan's last."""
        if self.accelerator.is_main_process:
            cut_after(self.run.metrics, first_step)
        self._start_clock()
        for step in range(first_step, self.plan.steps):
            self._refresh_reference(step)
            self._step(step)
            done = step + 1
            saves = self._saves_after(done)
            # A line before each checkpoint, so that no line's mean spans what a resumed run has not seen.
            self.progress(done, self._log(done) if saves or self._is_logged(done) else None)
            if saves:
                self._save(done)

    def resume(self) -> int:
        """Load the newest complete checkpoint; the step to go on from. Says what it passed over."""
        checkpoint, skipped = checkpoints.latest(self.run)
        for reason in skipped:
            self.accelerator.print(f"checkpoint passed over: {reason}")
        if checkpoint is None:
            self.accelerator.print("no complete checkpoint: starting from the first step")
            return 0
        facts = checkpoints.facts(checkpoint)
        if facts["lock"] != self.plan.lock:
            raise RunDirectoryError(
                f"{checkpoint.path} is of another recipe or other data; start again with --overwrite."
            )
        if facts["processes"] != self.plan.processes:
            raise RunDirectoryError(
                f"{checkpoint.path} was written by {facts['processes']} processes and {self.plan.processes} "
                f"are running; resume with --processes {facts['processes']}."
            )
        checkpoints.require_harmless(checkpoint)
        self.accelerator.load_state(str(checkpoint.path / "state"))
        if self._refreshed is not None and self.models.reference is not None:
            weights = torch.load(
                checkpoint.path / "reference.pt", weights_only=True, map_location=self.accelerator.device
            )
            refresh(self.models.reference, weights)
        if self.accelerator.is_main_process:
            checkpoints.forget_after(self.run, checkpoint.step)
        self.accelerator.print(f"resuming after step {checkpoint.step} from {checkpoint.path}")
        return checkpoint.step

    def _step(self, step: int) -> None:
        """One optimizer step over this process's share of the global batch."""
        rows = self._share(step)
        student = self.accelerator.unwrap_model(self.models.student)
        rollouts = self.sampler.sample(student, rows, step) if self.objective.needs_rollouts else [None] * len(rows)
        # Rows of like length share a micro-batch, so that little is padded; the global mean does not depend on it.
        pairs = sorted((self.objective.pair(*item) for item in zip(rows, rollouts, strict=True)), key=_tokens)
        counts = self._global_counts(pairs)
        set_learning_rate(self.optimizer, learning_rate(self.recipe.training, step, self.plan.steps))
        parts = list(batched(pairs, self.plan.micro_batch_size))
        for number, part in enumerate(parts, start=1):
            self._micro_step(part, counts, last=number == len(parts))
        self._observe_rollouts(pairs)
        self._require_finite_gradient(step)

    def _micro_step(self, pairs: Sequence[Pair], counts: dict[str, Tensor], *, last: bool) -> None:
        results = self.objective(self.models, pairs)
        # DeepSpeed averages gradients over the processes; our mean is over the global batch already.
        loss = combine(results, self.objective.weights, counts) * self.plan.processes
        self.grad_norm = backward(self.models.student, loss, last=last)
        languages = [pair.row.language for pair in pairs]
        for name, result in results.items():
            self.window.add_signal(name, result, languages, [pair.row.shown.get(name, "none") for pair in pairs])

    def _share(self, step: int) -> list[Row]:
        """This process's rows of the global batch: the batch is the same however many processes share it."""
        indices = self.mixture.rows(step, self.plan.batch_size)
        share = self.plan.batch_size // self.plan.processes
        first = self.accelerator.process_index * share
        return [self.rows[i] for i in indices[first : first + share]]

    def _global_counts(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """Valid items of each signal over all processes and micro-batches of this step."""
        mine = self.objective.counts(pairs)
        counts = torch.tensor(list(mine.values()), dtype=torch.float64, device=self.accelerator.device)
        if dist.is_initialized():
            dist.all_reduce(counts)
        self.tokens += sum(len(p.row.response) + (len(p.rollout.ids) if p.rollout else 0) for p in pairs)
        return dict(zip(mine, counts, strict=True))

    def _observe_rollouts(self, pairs: Sequence[Pair]) -> None:
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
            self.window.add(f"rollout.{name}", Sums(torch.tensor(values, dtype=torch.float64), one), languages)

    @property
    def _refreshed(self) -> RefreshedReference | None:
        reference = self.recipe.signals.sequence.reference
        return reference if isinstance(reference, RefreshedReference) else None

    def _refresh_reference(self, step: int) -> None:
        if self.models.reference is not None and self._refreshed is not None and step % self._refreshed.every == 0:
            refresh(self.models.reference, self.accelerator.unwrap_model(self.models.student).state_dict())

    def _is_logged(self, done: int) -> bool:
        return done % self.recipe.training.log_every == 0 or done == self.plan.steps

    def _saves_after(self, done: int) -> bool:
        every = self.recipe.training.checkpoint_every
        return every is not None and done % every == 0 and done < self.plan.steps

    def _log(self, done: int) -> dict[str, Any]:
        """Write a line of metrics.jsonl; every process takes part in adding up."""
        line: dict[str, Any] = {"step": done, "epoch": done * self.plan.batch_size / self.plan.rows_per_epoch}
        line |= self.window.summary(self.window.read_out(), self.objective.weights)
        self._require_finite(line)
        seconds = time.monotonic() - self.started
        line |= {
            "learning_rate": learning_rate(self.recipe.training, done - 1, self.plan.steps),
            "grad_norm": self.grad_norm,
            "tokens_per_second": self.tokens * self.plan.processes / seconds,
            "seconds": seconds,
        }
        self._start_clock()
        if self.accelerator.is_main_process:
            append_line(self.run.metrics, line)
        return line

    def _start_clock(self) -> None:
        self.tokens, self.started = 0, time.monotonic()

    def _require_finite_gradient(self, step: int) -> None:
        """At every step: one bad gradient spoils the weights, or in bf16 is skipped without a word."""
        if self.grad_norm is None or math.isfinite(self.grad_norm):
            return
        line = {"step": step + 1} | self.window.summary(self.window.read_out(), self.objective.weights)
        self._require_finite(line)
        raise TrainingFailed(
            f"the gradient norm is {self.grad_norm} at step {step + 1}, although the loss is {line['loss']:.4g}. Lower "
            "training.learning_rate, or use training.precision: fp32; then start again."
        )

    def _require_finite(self, line: dict[str, Any]) -> None:
        if math.isfinite(line["loss"]):
            return
        broken = {name: signal for name, signal in line["signals"].items() if not math.isfinite(signal["loss"])}
        culprits = [f"{name} ({', '.join(_not_finite(signal['by_language']))})" for name, signal in broken.items()]
        raise TrainingFailed(
            f"the loss is {line['loss']} at step {line['step']}, from {'; '.join(culprits)}. Lower "
            "training.learning_rate or training.max_grad_norm, or use training.precision: fp32; then start again."
        )

    def _save(self, step: int) -> None:
        """Write a checkpoint; all processes take part, the first one publishes it."""
        main = self.accelerator.is_main_process
        partial = self.run.checkpoints / f".step-{step}.partial"
        if main:
            checkpoints.partial_folder(self.run, step)
        self.accelerator.wait_for_everyone()
        with checkpoints.writing(partial):
            self.accelerator.save_state(str(partial / "state"))
            if main and self._refreshed is not None and self.models.reference is not None:
                torch.save(self.models.reference.state_dict(), partial / "reference.pt")
        self.accelerator.wait_for_everyone()
        if main:
            facts = {"lock": self.plan.lock, "processes": self.plan.processes}
            checkpoints.publish(self.run, partial, step, facts, self.recipe.training.keep_checkpoints)
        self.accelerator.wait_for_everyone()


def _not_finite(by_language: dict[str, float]) -> list[str]:
    return [code for code, loss in by_language.items() if not math.isfinite(loss)]


def _tokens(pair: Pair) -> int:
    """The most that any model reads of a pair."""
    row, rollout, reading = pair
    prompt = max(len(ids) for ids in (row.prompt, *row.teacher_prompts.values()))
    responses = [
        row.response,
        rollout.ids if rollout else [],
        *(heard.ids for heard in (row.reading, reading) if heard),
    ]
    return prompt + max(map(len, responses))


def batched(pairs: Sequence[Pair], size: int) -> Iterator[Sequence[Pair]]:
    """Consecutive slices of `size`."""
    return (pairs[start : start + size] for start in range(0, len(pairs), size))
