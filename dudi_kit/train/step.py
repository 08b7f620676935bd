"""One micro-batch of the method: read it top to bottom like section 1 of the design.

    L = α·L_seq + w_off·L_off + w_on·L_on      (+ SFT and DFT, for cold starts and baselines)

One student pass over (y, ỹ) serves all signals, and likewise one pass of teacher and of reference. A signal without a
weight is not computed, and a side or a model that no signal needs is not read.
Shape suffix: N the student's response tokens.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dudi_kit.data.batches import Batch, join, pack
from dudi_kit.data.sending import sent
from dudi_kit.models.generation import Continuation
from dudi_kit.models.head import Predictions
from dudi_kit.models.head_form import inner
from dudi_kit.models.packing import sharing_of
from dudi_kit.models.reading import FEW, Places, predictions
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.rollouts import Rollouts
from dudi_kit.recipe.schema.signals import Signals, TokenSignal
from dudi_kit.recipe.schema.verbalizer import Term
from dudi_kit.signals.chunks import chunk_positions, group_positions
from dudi_kit.signals.divergences import at_least_fp32
from dudi_kit.signals.result import SignalResult, Sums
from dudi_kit.signals.spans import sum_spans
from dudi_kit.train.builders import active_weights, comparison_of, span_rules, tensors_of
from dudi_kit.train.clock import NO_CLOCK, Clock
from dudi_kit.train.facing import ReadAs, Spans, facing, nobody
from dudi_kit.train.forms import Predicted, patched
from dudi_kit.train.judging import Judge
from dudi_kit.train.keeping import Keeping
from dudi_kit.train.likelihoods import OF_LIKELIHOOD, Likelihoods, SpanTerm
from dudi_kit.train.onepass import loss_in_one_pass
from dudi_kit.train.positions import Positions, positions_of
from dudi_kit.train.told import Told, with_label_words
from dudi_kit.verbalizer.label_words.mass import LabelMass
from dudi_kit.verbalizer.vocabulary.mapping import MappedVocabulary
from dudi_kit.verbalizer.vocabulary.reading import Reading

ON_CORPUS = frozenset({"sequence", "off_policy", "sft", "dft"})
"""Signals that read the corpus response y."""

ON_ROLLOUT = frozenset({"sequence", "on_policy"})
"""Signals that read the student's own sample ỹ."""


class Pair(NamedTuple):
    """A row with the student's sample for it; None where no signal needs one."""

    row: Row
    rollout: Continuation | None
    reading: Reading | None = None
    """The rollout as the teacher reads it; None where it reads the student's own ids, or there is no rollout."""

    def response(self, term: Term) -> list[int]:
        """y for the off-policy term, ỹ for the on-policy one."""
        if term == "off_policy":
            return self.row.response
        assert self.rollout is not None, "a signal on rollouts is active, so rollouts were sampled"
        return self.rollout.ids

    def read_by_teacher(self, term: Term) -> Reading | None:
        """How the teacher reads y or ỹ; None where it reads the student's own ids."""
        return self.row.reading if term == "off_policy" else self.reading


class Models(NamedTuple):
    """Who is asked. Only the student learns."""

    student: nn.Module
    teacher: nn.Module | None
    reference: nn.Module | None


class Outcome(NamedTuple):
    """What a micro-batch adds to the step."""

    loss: Tensor
    """Its share of the loss of the global batch, in nats, with the gradient to the student: a scalar."""

    results: dict[str, SignalResult]
    """Each active signal by row, without a gradient."""


@dataclass(frozen=True)
class Padding:
    """What fills the student's and the teacher's batches."""

    student: int
    teacher: int


class Objective:
    """Computes the active signals of a micro-batch."""

    def __init__(
        self,
        signals: Signals,
        *,
        padding: Padding,
        pieces: int | None,
        mapped: MappedVocabulary | None = None,
        rollouts: Rollouts | None = None,
        context: int | None = None,
        with_labels: bool = False,
        few: int = FEW,
        packing: bool = False,
        keeping: Keeping | None = None,
        clock: Clock = NO_CLOCK,
    ) -> None:
        """One of: pieces, the size of the shared vocabulary, to which both sides' logits are cut; mapped, where the
        two vocabularies differ. Neither without a teacher. rollouts: how samples are drawn; default: the recipe's.
        context: longest input of the teacher in tokens, for samples that are longer in its tokens than in the
        student's.

        with_labels: some training row declares its set of label words. few: see `models.reading`.
        packing: rows share lines. keeping: what frozen models are asked once. clock: told which model is asked.
        """
        self.keeping, self.clock = keeping, clock
        self.context, self.with_labels, self.few = context, with_labels, few
        self.join = pack if packing else join
        self.weights = active_weights(signals)
        self.padding, self.pieces, self.mapped = padding, pieces, mapped
        self.beta = signals.sequence.beta
        token: dict[Term, TokenSignal] = {"off_policy": signals.off_policy, "on_policy": signals.on_policy}
        token = {term: signal for term, signal in token.items() if term in self.weights}
        meet = tensors_of(mapped.meeting) if mapped else None
        self.comparisons = {term: comparison_of(signal, pieces, meet) for term, signal in token.items()}
        self.temperatures = {term: signal.temperature for term, signal in token.items()}
        self.span_rules = span_rules(token, rollouts or Rollouts()) if mapped else {}

    def alone(self, name: str) -> "Objective":
        """The same with one of its signals only."""
        other = copy.copy(self)
        other.weights = {name: self.weights[name]}
        other.comparisons = {term: kind for term, kind in self.comparisons.items() if term == name}
        return other

    @property
    def needs_rollouts(self) -> bool:
        """Some active signal reads ỹ."""
        return bool(ON_ROLLOUT & self.weights.keys())

    def pair(self, row: Row, rollout: Continuation | None) -> Pair:
        """A row with its sample, read by the teacher where its tokens differ."""
        if self.mapped is None or rollout is None or "on_policy" not in self.weights:
            return Pair(row, rollout)
        reading = self.mapped.read(rollout.ids)
        if self.context is not None:
            reading = reading.within(self.context - len(row.teacher_prompts["on_policy"]))
        return Pair(row, rollout, reading)

    def counts(self, pairs: Sequence[Pair]) -> dict[str, int]:
        """Valid items of each active signal, tokens or pairs. Known before any model is asked."""
        corpus = sum(len(pair.row.response) for pair in pairs)
        items = {"sequence": len(pairs), "sft": corpus, "dft": corpus}
        for term in ("off_policy", "on_policy"):
            if term in self.weights:
                items[term] = sum(_taught_tokens(pair, term) for pair in pairs)
        return {name: items[name] for name in self.weights}

    def __call__(
        self,
        models: Models,
        pairs: Sequence[Pair],
        counts: Mapping[str, Tensor | float],
        until_backward: ExitStack | None = None,
    ) -> Outcome:
        """Every active signal over these rows. counts: valid items of each in the global batch, as `counts` adds up.

        Each model is asked once; the frozen ones first, while nothing of the student's graph is held.
        until_backward: closed by the caller after the backward; until then the student's head is whole, where it is
        shared out over processes. None: it is whole anyway.
        """
        terms = self._terms_read_by_student()
        device = next(models.student.parameters()).device
        positions = positions_of(len(pairs), terms, lambda pair, term: pairs[pair].response(term))
        said = [(pair.row.prompt, pair.response(term)) for term in terms for pair in pairs]
        batch = self._join(said, models.student, self.padding.student, device)
        places = positions.places(device)
        with ExitStack() as opened:
            told, label_mass = self._told(models, pairs, opened)
            reference_N = self._reference_logprobs(models, pairs, batch, places, positions)
            whole = opened if until_backward is None else until_backward
            with self.clock("student", batch.input_ids_LT.shape):
                student = whole.enter_context(predictions(models.student, batch, places, few=self.few))
            self.clock.turns(student.rows, "loss", "student backward")
            faces = facing(positions, told.positions, self._read_as(pairs)) if told else nobody(positions)
            judge = Judge(
                positions=positions,
                facing=faces,
                told=told,
                comparisons=self.comparisons,
                likelihoods=self._likelihoods(positions, reference_N, faces.spans, told),
                weights=self.weights,
                counts=counts,
                head=student.head,
                device=device,
                dtype=at_least_fp32(student.dtype),
            )
            pieces = max(student.pieces, told.predictions.pieces if told else 0)  # both sides' logits are there at once
            size = (group_positions if judge.listens else chunk_positions)(pieces, student.dtype)
            groups = list(positions.groups(size)) if judge.listens else [slice(0, len(positions))]
            loss = loss_in_one_pass(student, groups, judge, size)
        results = judge.results
        return Outcome(
            loss,
            results | {name: _with_label_mass(results[name], mass) for name, mass in label_mass.items()},
        )

    def _terms_read_by_student(self) -> list[Term]:
        """The sides of the student's batch: y under the name of its term, then ỹ."""
        sides: list[tuple[Term, frozenset[str]]] = [("off_policy", ON_CORPUS), ("on_policy", ON_ROLLOUT)]
        return [term for term, readers in sides if readers & self.weights.keys()]

    def _terms_of_teacher(self) -> list[Term]:
        terms: tuple[Term, ...] = ("off_policy", "on_policy")
        return [term for term in terms if term in self.weights]

    def _read_as(self, pairs: Sequence[Pair]) -> ReadAs:
        return lambda pair, term: pairs[pair].read_by_teacher(term) if self.mapped else None

    @torch.no_grad()
    def _told(
        self, models: Models, pairs: Sequence[Pair], opened: ExitStack
    ) -> tuple[Told | None, dict[str, LabelMass]]:
        """The teacher's predictions of its own tokens of the responses."""
        terms = self._terms_of_teacher()
        kept = self.keeping.teacher if self.keeping and "off_policy" in terms else None
        if not terms or (models.teacher is None and kept is None):
            return None, {}
        device = next(models.student.parameters()).device
        positions = positions_of(len(pairs), terms, lambda pair, term: _teacher_ids(pairs[pair], term))
        found: list[Predicted] = []
        if kept is not None:
            with self.clock("teacher"):
                kept.ask(models.teacher, [pair.row for pair in pairs])
                found.append(kept.predicted([pair.row for pair in pairs]))
        live = [term for term in terms if term != "off_policy" or kept is None]
        if live:
            assert models.teacher is not None, "it leaves only where nothing else asks it"
            found.append(opened.enter_context(self._live(models.teacher, pairs, live, device)))
        said = found[0] if len(found) == 1 else patched(found, positions)
        if not self.with_labels:
            return Told(said, positions), {}
        return with_label_words(said, positions, [pair.row.labels for pair in pairs])

    @contextmanager
    def _live(
        self, teacher: nn.Module, pairs: Sequence[Pair], terms: Sequence[Term], device: torch.device
    ) -> Iterator[Predictions]:
        """What the teacher says of these terms' responses, pair after pair."""
        inputs = [(pair.row.teacher_prompts[term], _teacher_ids(pair, term)) for term in terms for pair in pairs]
        positions = positions_of(len(pairs), terms, lambda pair, term: _teacher_ids(pairs[pair], term))
        batch = self._join(inputs, teacher, self.padding.teacher, device)
        with ExitStack() as opened:
            with self.clock("teacher", batch.input_ids_LT.shape):
                said = opened.enter_context(predictions(teacher, batch, positions.places(device), few=self.few))
            yield said

    @torch.no_grad()
    def _reference_logprobs(
        self, models: Models, pairs: Sequence[Pair], batch: Batch, places: Places, positions: Positions
    ) -> Tensor:
        """log π_ref of every token, in nats; empty where nobody asks. Of a response that is kept, all at its first."""
        if models.reference is None or "sequence" not in self.weights:
            return torch.zeros(0)
        with self.clock("reference", batch.input_ids_LT.shape):
            return self._asked_reference(models.reference, pairs, batch, places, positions)

    def _asked_reference(
        self, reference: nn.Module, pairs: Sequence[Pair], batch: Batch, places: Places, positions: Positions
    ) -> Tensor:
        kept = self.keeping.reference if self.keeping else None
        if kept is None:
            with predictions(reference, batch, places, few=self.few) as found:
                return Told(found, positions).logprobs(np.arange(len(positions)), 1.0)
        device = places.row_N.device
        lacking = [pair for pair in pairs if pair.row not in kept]
        asked = self._referred(reference, lacking, "off_policy", device)
        for pair, logprob_n in zip(lacking, asked, strict=True):
            kept.put(pair.row, float(logprob_n.double().sum()))
        sampled = self._referred(reference, pairs, "on_policy", device)
        reference_N = torch.zeros(len(positions), device=device, dtype=sampled[0].dtype)
        for segment in positions.segments:
            if segment.term == "on_policy":
                reference_N[segment.place] = sampled[segment.pair]
            else:
                reference_N[segment.place.start] = kept.get(pairs[segment.pair].row)
        return reference_N

    def _referred(self, reference: nn.Module, pairs: Sequence[Pair], term: Term, device: torch.device) -> list[Tensor]:
        """log π_ref of the tokens of these responses, in nats."""
        if not pairs:
            return []
        positions = positions_of(len(pairs), [term], lambda number, _: pairs[number].response(term))
        said = [(pair.row.prompt, pair.response(term)) for pair in pairs]
        batch = self._join(said, reference, self.padding.student, device)
        with predictions(reference, batch, positions.places(device), few=self.few) as found:
            logprob_N = Told(found, positions).logprobs(np.arange(len(positions)), 1.0)
        return [logprob_N[segment.place] for segment in positions.segments]

    def _likelihoods(
        self, positions: Positions, reference_N: Tensor, spans: Spans | None, told: Told | None
    ) -> Likelihoods:
        names, terms = OF_LIKELIHOOD & self.weights.keys(), dict[Term, SpanTerm]()
        if spans is None or told is None or not len(spans.pair_S):
            return Likelihoods(positions, names, self.beta, reference_N, None, terms)
        for term in self.comparisons:
            logprob_F = told.logprobs(spans.teacher_F, self.temperatures[term])
            span_F = sent(spans.span_F, logprob_F.device)
            teacher_S = sum_spans(logprob_F, span_F, len(spans.pair_S))
            terms[term] = SpanTerm(self.span_rules[term], self.temperatures[term], teacher_S)
        return Likelihoods(positions, names, self.beta, reference_N, spans, terms)

    def _join(
        self, inputs: Sequence[tuple[list[int], list[int]]], model: nn.Module, pad_id: int, device: torch.device
    ) -> Batch:
        """For this model to read."""
        prompts, responses = zip(*inputs, strict=True)
        with self.clock("data"):
            sharing = sharing_of(inner(model).config)
            return self.join(prompts, responses, pad_id=pad_id, sharing=sharing).to(device)


def _teacher_ids(pair: Pair, term: Term) -> list[int]:
    reading = pair.read_by_teacher(term)
    return pair.response(term) if reading is None else reading.ids


def _taught_tokens(pair: Pair, term: Term) -> int:
    """Student tokens on which the teacher has a word."""
    reading = pair.read_by_teacher(term)
    return len(pair.response(term)) if reading is None else reading.alignment.tokens - reading.alignment.untaught


def _with_label_mass(result: SignalResult, mass: LabelMass) -> SignalResult:
    metrics = {"label_mass_moved": mass.moved, "label_mass_at_home": mass.at_home}
    logged = {name: Sums(mass_B, mass.declared) for name, mass_B in metrics.items()}
    return replace(result, metrics={**result.metrics, **logged})
