"""One micro-batch of the method: read it top to bottom like section 1 of the design.

    L = α·L_seq + w_off·L_off + w_on·L_on      (+ SFT and DFT, for cold starts and baselines)

One student pass over (y, ỹ) serves all signals, and likewise one pass of teacher and of reference. A signal without a
weight is not computed, and a side or a model that no signal needs is not read.
Shape suffixes: B rows of one side, R response columns, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dudi_kit.data.batches import Batch, join
from dudi_kit.models.generation import Continuation
from dudi_kit.models.reading import frozen_response_logits, response_logits
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.rollouts import Rollouts
from dudi_kit.recipe.schema.signals import Signals, TokenSignal
from dudi_kit.recipe.schema.verbalizer import Term
from dudi_kit.signals.divergences import Divergence
from dudi_kit.signals.likelihood import dft_signal, sft_signal
from dudi_kit.signals.logprobs import token_logprobs
from dudi_kit.signals.meeting import Meet
from dudi_kit.signals.result import SignalResult, Sums
from dudi_kit.signals.sequence import PairLogprobs, sequence_signal
from dudi_kit.signals.token import token_signal
from dudi_kit.train.builders import (
    OF_TEACHER,
    SpanRule,
    active_weights,
    bare_divergence_of,
    divergence_of,
    off_samples,
    on_samples,
    tensors_of,
)
from dudi_kit.train.facing import Compared, FacingSignal
from dudi_kit.verbalizer.label_words.mass import LabelMass, move_label_mass
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


class Sides(NamedTuple):
    """A quantity over y (`corpus`) and over ỹ (`rollout`); a side that no signal needs has no rows."""

    corpus: Tensor
    rollout: Tensor


@dataclass(frozen=True)
class Readings:
    """What the models said about a micro-batch."""

    mask: Sides
    """True at response tokens: [B, R]."""

    student_logits: Sides
    """[B, R, V], with gradient."""

    teacher_logits: Sides
    """[B, R', V'] in the shared vocabulary, of the sides that a token signal needs."""

    label_mass: dict[str, LabelMass]
    """The teacher's mass on label words, by token signal."""

    policy: Sides
    """log π of each response token in nats, with gradient: [B, R]."""

    reference: Sides
    """log π_ref of each response token in nats: [B, R]."""

    response_ids: Sides
    """The student's tokens: [B, R]."""

    readings: Mapping[Term, Sequence[Reading]]
    """How the teacher read each row; empty where it read the student's own ids."""


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
    ) -> None:
        """One of: pieces, the size of the shared vocabulary, to which both sides' logits are cut; mapped, where the
        two vocabularies differ. Neither without a teacher. rollouts: how samples are drawn; default: the recipe's.
        context: longest input of the teacher in tokens, for samples that are longer in its tokens than in the
        student's.

        with_labels: some training row declares its set of label words.
        """
        self.context, self.with_labels = context, with_labels
        self.weights = active_weights(signals)
        self.padding, self.pieces, self.mapped = padding, pieces, mapped
        self.terms: dict[str, Callable[[Readings], SignalResult]] = {
            "sequence": lambda read: sequence_signal(
                _pair_sums(read.policy), _pair_sums(read.reference), beta=signals.sequence.beta
            ),
            "off_policy": _off_policy(divergence_of(signals.off_policy), pieces),
            "on_policy": _on_policy(divergence_of(signals.on_policy), pieces),
            **(_between_vocabularies(signals, mapped, rollouts or Rollouts()) if mapped else {}),
            "sft": lambda read: sft_signal(read.policy.corpus, read.mask.corpus),
            "dft": lambda read: dft_signal(read.policy.corpus, read.mask.corpus),
        }

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

    def __call__(self, models: Models, pairs: Sequence[Pair]) -> dict[str, SignalResult]:
        """Every active signal over these rows, with gradient to the student."""
        readings = self.read(models, pairs)
        results = {name: self.terms[name](readings) for name in self.weights}
        return results | {name: _with_label_mass(results[name], mass) for name, mass in readings.label_mass.items()}

    def read(self, models: Models, pairs: Sequence[Pair]) -> Readings:
        """Ask each model once."""
        terms = self._terms_read_by_student()
        batch = self._join(
            [(pair.row.prompt, pair.response(term)) for term in terms for pair in pairs], self.padding.student, models
        )
        corpus_rows = len(pairs) if "off_policy" in terms else 0
        # The frozen ones first, while nothing of the student's graph is held.
        teacher_logits, label_mass = self._teacher_logits(models, pairs)
        reference = self._reference_logprobs(models, batch)
        logits = response_logits(models.student, batch)
        with_logprobs = bool(self.weights.keys() - OF_TEACHER)
        return Readings(
            mask=_split(batch.response_mask_BR, corpus_rows),
            student_logits=_split(logits, corpus_rows),
            teacher_logits=teacher_logits,
            label_mass=label_mass,
            policy=_split(_logprobs(logits, batch) if with_logprobs else logits.new_zeros(0), corpus_rows),
            reference=_split(reference, corpus_rows),
            response_ids=_split(batch.response_ids_BR, corpus_rows),
            readings=self._readings(pairs),
        )

    def _terms_read_by_student(self) -> list[Term]:
        """The sides of the student's batch: y under the name of its term, then ỹ."""
        sides: list[tuple[Term, frozenset[str]]] = [("off_policy", ON_CORPUS), ("on_policy", ON_ROLLOUT)]
        return [term for term, readers in sides if readers & self.weights.keys()]

    def _readings(self, pairs: Sequence[Pair]) -> dict[Term, list[Reading]]:
        found: dict[Term, list[Reading]] = {}
        for term in self._terms_of_teacher() if self.mapped else ():
            readings = [pair.read_by_teacher(term) for pair in pairs]
            found[term] = [reading for reading in readings if reading is not None]
            assert len(found[term]) == len(pairs), "every response has been read"
        return found

    def _terms_of_teacher(self) -> list[Term]:
        terms: tuple[Term, ...] = ("off_policy", "on_policy")
        return [term for term in terms if term in self.weights]

    def _teacher_logits(self, models: Models, pairs: Sequence[Pair]) -> tuple[Sides, dict[str, LabelMass]]:
        terms = self._terms_of_teacher()
        if models.teacher is None or not terms:
            return _split(torch.zeros(0), 0), {}
        inputs = [(pair.row.teacher_prompts[term], _teacher_ids(pair, term)) for term in terms for pair in pairs]
        batch = self._join(inputs, self.padding.teacher, models)
        logits = frozen_response_logits(models.teacher, batch)
        sides = _split(logits[..., : self.pieces], len(pairs) if "off_policy" in terms else 0)
        return sides, self._move_label_mass(logits, pairs, terms)

    def _move_label_mass(self, logits: Tensor, pairs: Sequence[Pair], terms: Sequence[Term]) -> dict[str, LabelMass]:
        """Say the teacher's label words in the row's language, in place: `logits` are of one term after the other."""
        if not self.with_labels:
            return {}
        moves = [pair.row.labels for pair in pairs]
        rows = len(pairs)
        return {
            term: move_label_mass(
                logits[i * rows : (i + 1) * rows], moves, [_teacher_ids(pair, term) for pair in pairs]
            )
            for i, term in enumerate(terms)
        }

    @torch.no_grad()
    def _reference_logprobs(self, models: Models, batch: Batch) -> Tensor:
        if models.reference is None:
            return torch.zeros(0)
        return _logprobs(response_logits(models.reference, batch), batch)

    def _join(self, inputs: Sequence[tuple[list[int], list[int]]], pad_id: int, models: Models) -> Batch:
        device = next(models.student.parameters()).device
        prompts, responses = zip(*inputs, strict=True)
        return join(prompts, responses, pad_id=pad_id).to(device)


def _teacher_ids(pair: Pair, term: Term) -> list[int]:
    reading = pair.read_by_teacher(term)
    return pair.response(term) if reading is None else reading.ids


def _taught_tokens(pair: Pair, term: Term) -> int:
    """Student tokens on which the teacher has a word."""
    reading = pair.read_by_teacher(term)
    return len(pair.response(term)) if reading is None else reading.alignment.tokens - reading.alignment.untaught


def _logprobs(logits_BRV: Tensor, batch: Batch) -> Tensor:
    return token_logprobs(logits_BRV, batch.response_ids_BR, batch.response_mask_BR)


def _with_label_mass(result: SignalResult, mass: LabelMass) -> SignalResult:
    metrics = {"label_mass_moved": mass.moved, "label_mass_at_home": mass.at_home}
    logged = {name: Sums(mass_B, mass.declared) for name, mass_B in metrics.items()}
    return replace(result, metrics={**result.metrics, **logged})


def _split(joined: Tensor, corpus_rows: int) -> Sides:
    return Sides(joined[:corpus_rows], joined[corpus_rows:])


def _pair_sums(logprob: Sides) -> PairLogprobs:
    """log π(y|x) and log π(ỹ|x): sums over response tokens; masked positions hold 0."""
    return PairLogprobs(corpus_B=logprob.corpus.sum(-1), rollout_B=logprob.rollout.sum(-1))


def _off_policy(divergence: Divergence, pieces: int | None) -> Callable[[Readings], SignalResult]:
    return lambda read: _token_signal(
        read.student_logits.corpus, read.teacher_logits.corpus, read.mask.corpus, divergence, pieces
    )


def _on_policy(divergence: Divergence, pieces: int | None) -> Callable[[Readings], SignalResult]:
    return lambda read: _token_signal(
        read.student_logits.rollout, read.teacher_logits.rollout, read.mask.rollout, divergence, pieces
    )


def _token_signal(
    student_BRV: Tensor, teacher_BRV: Tensor, mask_BR: Tensor, divergence: Divergence, pieces: int | None
) -> SignalResult:
    """The token signal over the columns that both sides have, in the pieces that both have.

    The teacher may have read fewer response columns than the student (its batch holds one side only); what is beyond
    them is padding of this side.
    """
    width = teacher_BRV.shape[1]
    return token_signal(student_BRV[:, :width, :pieces], teacher_BRV, mask_BR[:, :width], divergence)


def _facing(signal: TokenSignal, spans: SpanRule, meet: Meet) -> FacingSignal:
    return FacingSignal(bare_divergence_of(signal), signal.temperature, spans, meet)


def _between_vocabularies(
    signals: Signals, mapped: MappedVocabulary, rollouts: Rollouts
) -> dict[str, Callable[[Readings], SignalResult]]:
    """Both token signals where teacher and student have different pieces."""
    meet = tensors_of(mapped.meeting)
    off = _facing(signals.off_policy, off_samples(signals.off_policy), meet)
    on = _facing(signals.on_policy, on_samples(signals.on_policy, rollouts), meet)
    return {
        "off_policy": lambda read: off(
            Compared(
                read.student_logits.corpus,
                read.teacher_logits.corpus,
                read.response_ids.corpus,
                read.readings["off_policy"],
            )
        ),
        "on_policy": lambda read: on(
            Compared(
                read.student_logits.rollout,
                read.teacher_logits.rollout,
                read.response_ids.rollout,
                read.readings["on_policy"],
            )
        ),
    }
