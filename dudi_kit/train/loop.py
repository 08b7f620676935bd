"""The loop: which rows, sample, count, forward and backward, step, log, save.

Everything that a step depends on is a function of its number: the rows, the learning rate and the rollouts' random
numbers. So a resumed run needs weights and optimizer state only, and does what the uninterrupted run would have done.
A step that was begun can be left before the optimizer's part of it: nothing has changed yet.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from dudi_kit.data.mixing import Mixture
from dudi_kit.data.sending import sent
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import Interrupted
from dudi_kit.models.generation import Continuation
from dudi_kit.models.reference import refresh
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.rows import Row
from dudi_kit.plan.schema import Plan
from dudi_kit.recipe.schema import Recipe
from dudi_kit.signals.result import SignalResult
from dudi_kit.train.during import LEFT, NOT_SCORED, Scored, at_rest, forget_scores, scored_together
from dudi_kit.train.engine import Student, backward, set_learning_rate
from dudi_kit.train.gradients import SignalGradients
from dudi_kit.train.heap import give_back
from dudi_kit.train.keeping import Keeping
from dudi_kit.train.metrics import Window, append_line, cut_after
from dudi_kit.train.micro_batches import batched, by_length
from dudi_kit.train.rng import random_states, set_random_states
from dudi_kit.train.rollout_log import RolloutLog, RowLosses, row_losses
from dudi_kit.train.rollouts import Sampler, observe_rollouts, observe_sampler
from dudi_kit.train.saving import refreshed_reference
from dudi_kit.train.schedule import learning_rate
from dudi_kit.train.spikes import Spikes
from dudi_kit.train.step import Models, Objective, Pair
from dudi_kit.train.surroundings import Surroundings
from dudi_kit.train.system import system_line
from dudi_kit.train.watch import Moment, StepRecord, failure, save_failure


class _LeftStep(Exception):
    """All processes have agreed to leave the step that they are in."""


@dataclass
class Loop:
    """A training run inside one process."""

    run: RunDir
    recipe: Recipe
    plan: Plan
    accelerator: Accelerator
    models: Models
    """With the student in the engine."""

    student: Student
    objective: Objective
    between: Objective
    """The same without the signals on samples, for the steps in which nothing is sampled."""

    sampler: Sampler
    rollout_log: RolloutLog
    rows: list[Row]
    mixture: Mixture
    around: Surroundings
    keeping: Keeping | None = None
    """What frozen models are asked once."""

    grad_norm: float | None = None
    """Of the last step, before clipping."""

    gradients: SignalGradients | None = None
    """Of the signals, at the steps at which they are measured."""

    tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.window = Window(sorted(self.plan.languages), self.accelerator.device)
        self.record = StepRecord()
        self.spikes = Spikes()

    def train(self, first_step: int) -> None:
        """From `first_step` to the plan's last. Interrupted, once all is saved, where it was asked to stop."""
        scores = self._is_scored(first_step)
        if self.accelerator.is_main_process:
            for log in (self.run.metrics, self.run.rollout_log):
                cut_after(log, first_step)
            if scores:
                forget_scores(self.run.metrics, first_step)
            self.spikes.remember(self.run.metrics)
        saved = logged = first_step
        if scores and self._score(first_step).left:
            raise Interrupted(self._stopped(saved))
        self._start_clock()
        for step in self.around.clock.steps(range(first_step, self.plan.steps)):
            window, drawn = copy.deepcopy(self.window), random_states()
            try:
                self._refresh_reference(step)
                self._step(step)
                done, stops = step + 1, self._asked_to_stop()
            except _LeftStep:
                self.window, self.gradients, done, stops = window, None, step, True
                set_random_states(drawn)  # the resumed run begins the step anew, and draws the same dropout
            scores = not stops and self._is_scored(done)
            # A line before each checkpoint, so that no line's mean spans what a resumed run has not seen.
            logs = logged < done and (stops or scores or self._saves_after(done) or self._is_logged(done))
            with self.around.clock("log"):
                self.around.progress(done, self._log(done) if logs else None)
            if logs:
                logged = done
            scored = self._score(done) if scores else NOT_SCORED
            stops |= scored.left
            saves = saved < done < self.plan.steps and (stops or scored.is_best or self._saves_after(done))
            if saves:
                self._save(done)
                saved = done
            if done < self.plan.steps and (stops or (saves and self._asked_to_stop())):
                raise Interrupted(self._stopped(saved))
        self._keep_answers()

    def _step(self, step: int) -> None:
        """One optimizer step over this process's share of the global batch."""
        self.around.heartbeat.beat(step + 1, "rollouts")
        clock = self.around.clock
        with clock("data"):
            rows = self._share(step)
        self._let_teacher_go(step)
        if self.keeping is not None and step + 1 < self.plan.steps:
            with clock("data"):
                self.keeping.expect(self._share(step + 1))
        objective = self.objective if step % self.recipe.rollouts.every == 0 else self.between
        rollouts = self._rollouts(rows, step) if objective.needs_rollouts else [None] * len(rows)
        with clock("data"):
            pairs = by_length(objective.pair(*item) for item in zip(rows, rollouts, strict=True))
        counts = self._global_counts(objective, pairs)
        set_learning_rate(self.student.optimizer, learning_rate(self.recipe.training, step, self.plan.steps))
        parts = list(batched(pairs, self.plan.micro_batch_size))
        shows = objective.needs_rollouts and self.rollout_log.is_due(step)
        losses: RowLosses = {}
        self.record.clear()
        self.gradients = self._signal_gradients(parts, counts) if self._measures_gradients(step + 1) else None
        for number, part in enumerate(parts, start=1):
            self.around.heartbeat.beat(step + 1, f"micro-batch {number} of {len(parts)}")
            results = self._micro_step(objective, part, counts, last=number == len(parts))
            losses |= row_losses(results, part) if shows else {}
            if number < len(parts) and self._asked_to_stop():
                raise _LeftStep
        with clock("log"):
            self.window.add_step(resting=self.objective.weights.keys() - objective.weights.keys())
            observe_rollouts(self.window, pairs)
        self._require_finite(step)
        if shows:
            with clock("log"):
                self.rollout_log.write(step, pairs, losses)

    def _let_teacher_go(self, step: int) -> None:
        """Once all that it would be asked for is answered."""
        if self.keeping is not None and self.keeping.before_step(self.mixture.rows(step, self.plan.batch_size)):
            self.models = self.models._replace(teacher=None)
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
            give_back()

    def _rollouts(self, rows: Sequence[Row], step: int) -> list[Continuation]:
        leaves = self._left_when_asked if self.sampler.may_be_left else nullcontext
        clock, whole = self.around.clock, self.student.whole()
        with clock("rollout"), whole as student, leaves(student):
            rollouts = self.sampler.sample(student, rows, step)
        if self._asked_to_stop():
            raise _LeftStep
        observe_sampler(self.window, rows, self.sampler.facts)
        return rollouts

    def _micro_step(
        self, objective: Objective, pairs: Sequence[Pair], counts: dict[str, Tensor], *, last: bool
    ) -> dict[str, SignalResult]:
        clock = self.around.clock
        with ExitStack() as until_backward:
            with clock("loss"):
                loss, results = objective(self.models, pairs, counts, until_backward)
            self.record.add(pairs, results)
            if last:
                clock.meet()
            # DeepSpeed averages gradients over the processes; our mean is over the global batch already.
            self.grad_norm = backward(self.models.student, loss * self.plan.processes, last=last, clock=clock)
        languages = [pair.row.language for pair in pairs]
        with clock("log"):
            for name, result in results.items():
                self.window.add_signal(name, result, languages, [pair.row.shown.get(name, "none") for pair in pairs])
        return results

    @contextmanager
    def _left_when_asked(self, student: nn.Module) -> Iterator[None]:
        """What may take minutes is left between two tokens. What comes of it is agreed on after it."""

        def leave(*_: object) -> None:
            if self.around.stop.asked:
                raise _LeftStep

        hook = student.register_forward_pre_hook(leave)
        try:
            with suppress(_LeftStep):
                yield
        finally:
            hook.remove()

    def _is_scored(self, done: int) -> bool:
        return self.around.watch is not None and self.around.watch.is_due(done)

    def _score(self, done: int) -> Scored:
        """Score the student, each process its share of the rows. Every process must call it."""
        watch, heartbeat, began = self.around.watch, self.around.heartbeat, time.monotonic()
        clock, whole = self.around.clock, self.student.whole()
        assert watch is not None, "nothing is due without it"
        heartbeat.beat(done, "evaluation")
        heard = None
        with clock("evaluation"), whole as student, at_rest(student), self._left_when_asked(student):
            rank, processes = self.accelerator.process_index, self.plan.processes
            heard = watch.scorer.ask(student, rank, processes, heartbeat.tell)
        if self._asked_to_stop():
            self.accelerator.print(f"not scored after step {done}: the run is to stop")
            return LEFT
        line, scored = watch.note(done, scored_together(watch.scorer, heard), time.monotonic() - began)
        if self.accelerator.is_main_process:
            append_line(self.run.metrics, line)
            self.around.trackers.log(line)
        self.around.progress(done, line)
        self.started += time.monotonic() - began  # of a line are the seconds that its steps took
        return scored

    def _asked_to_stop(self) -> bool:
        """Whether any process was; all get the same answer."""
        with self.around.clock("waiting"):
            return self.around.agree(self.around.stop.asked is not None)

    def _save(self, done: int) -> None:
        self.around.heartbeat.beat(done, "saving")
        with self.around.clock("save"):
            self._keep_answers()
            self.around.saving.save(done, self.models, self.around.watch)

    def _keep_answers(self) -> None:
        if self.keeping is not None:
            self.keeping.write()

    def _stopped(self, saved: int) -> str:
        """What a person who stopped the run wants to read. saved: steps in the newest checkpoint, if there is one."""
        by = f"stopped by {self.around.stop.asked.name}" if self.around.stop.asked else "stopped"
        if not saved:
            return f"{by} before the first step was done: there is nothing to save, start again ({self.run.path})"
        place = self.run.checkpoints / f"step-{saved}"
        return f"{by}; saved after step {saved} of {self.plan.steps} in {place}. Go on with --resume."

    def _share(self, step: int) -> list[Row]:
        """This process's rows of the global batch: the batch is the same however many processes share it."""
        indices = self.mixture.rows(step, self.plan.batch_size)
        share = self.plan.batch_size // self.plan.processes
        first = self.accelerator.process_index * share
        return [self.rows[i] for i in indices[first : first + share]]

    def _global_counts(self, objective: Objective, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """Valid items of each signal over all processes and micro-batches of this step."""
        mine = objective.counts(pairs)
        counts = sent(list(mine.values()), self.accelerator.device, torch.float64)
        if dist.is_initialized():
            with self.around.clock("waiting"):
                dist.all_reduce(counts)
        self.tokens += sum(len(p.row.response) + (len(p.rollout.ids) if p.rollout else 0) for p in pairs)
        return dict(zip(mine, counts, strict=True))

    def _measures_gradients(self, done: int) -> bool:
        every = self.recipe.training.gradient_norms_every
        return every is not None and done % every == 0

    def _signal_gradients(self, parts: Sequence[Sequence[Pair]], counts: dict[str, Tensor]) -> SignalGradients:
        """Each signal's own gradient over this process's share, from a pass that leaves no trace in the training."""
        device, clock, whole = self.accelerator.device, self.around.clock, self.student.whole()
        # Dropout, where there is one, is the same again in the pass that trains.
        same = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        with clock("signal gradients"), same, whole as student:
            gradients = SignalGradients(student, self.objective.weights)
            models = self.models._replace(student=student)
            for part in parts:
                for name in self.objective.weights:
                    gradients.add(name, self.objective.alone(name)(models, part, counts).loss)
        return gradients

    def _require_finite(self, step: int) -> None:
        """At every step: the engine does not apply a gradient that is no number, and would go on without a word."""
        loss = self.record.total()
        if dist.is_initialized():  # every process stops at the same step
            with self.around.clock("waiting"):
                dist.all_reduce(loss)
        norm = 0.0 if self.grad_norm is None else self.grad_norm
        if math.isfinite(loss.item()) and math.isfinite(norm):
            return
        moment = Moment(step + 1, self.accelerator.process_index, self.recipe.training.seed)
        path, rows = self.run.failure(moment.step, moment.rank), list(self.record.rows())
        save_failure(path, moment, rows, load_tokenizer(str(self.run.tokenizer)))
        line = {"step": step + 1} | self._summary()
        self.accelerator.wait_for_everyone()  # or the first to stop would end the others before they have saved theirs
        raise failure(norm, line, rows, path)

    def _refresh_reference(self, step: int) -> None:
        refreshed = refreshed_reference(self.recipe)
        if self.models.reference is not None and refreshed is not None and step % refreshed.every == 0:
            with self.around.clock("reference"), self.student.whole() as student:
                refresh(self.models.reference, student.state_dict())

    def _is_logged(self, done: int) -> bool:
        return done % self.recipe.training.log_every == 0 or done == self.plan.steps

    def _saves_after(self, done: int) -> bool:
        every = self.recipe.training.checkpoint_every
        return every is not None and done % every == 0 and done < self.plan.steps

    def _log(self, done: int) -> dict[str, Any]:
        """Write a line of metrics.jsonl; every process takes part in adding up."""
        line: dict[str, Any] = {"step": done, "epoch": done * self.plan.batch_size / self.plan.rows_per_epoch}
        line |= self._summary()
        seconds = time.monotonic() - self.started
        line |= {
            "learning_rate": learning_rate(self.recipe.training, done - 1, self.plan.steps),
            "grad_norm": self.grad_norm,
            "tokens_per_second": self.tokens * self.plan.processes / seconds,
            "seconds": seconds,
            "system": system_line(self.accelerator.device, self.accelerator.process_index, self.plan.processes),
        }
        if self.gradients is not None:
            for name, measured in self.gradients.read_out(self.accelerator.device).items():
                line["signals"][name]["gradient"] = measured
        self._start_clock()
        if self.accelerator.is_main_process:
            line |= {"spikes": found} if (found := self.spikes.look(line)) else {}
            append_line(self.run.metrics, line)
            self.around.trackers.log(line)
        return line

    def _summary(self) -> dict[str, Any]:
        return self.window.summary(self.window.read_out(), self.objective.weights)

    def _start_clock(self) -> None:
        self.tokens, self.started = 0, time.monotonic()
