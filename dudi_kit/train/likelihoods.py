"""The signals that read log-probabilities of what was said: sequence, SFT, DFT, and the spans of the token signals.

Shape suffixes: N the student's response tokens, n those of some pairs, S spans, B rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dudi_kit.data.sending import sent
from dudi_kit.recipe.schema.verbalizer import Term
from dudi_kit.signals.likelihood import dft_signal, sft_signal
from dudi_kit.signals.objective import combine
from dudi_kit.signals.result import SignalResult
from dudi_kit.signals.sequence import PairLogprobs, sequence_signal
from dudi_kit.signals.spans import SpanLogprobs, sum_spans
from dudi_kit.train.builders import SpanRule
from dudi_kit.train.facing import Spans
from dudi_kit.train.positions import Positions, padded

OF_LIKELIHOOD = frozenset({"sequence", "sft", "dft"})
"""Signals that are made of log-probabilities alone."""

Heard = Mapping[float, Tensor]
"""Temperature → log π of some tokens at it, in nats: [n]."""


@dataclass(frozen=True)
class SpanTerm:
    """How one term's spans are compared."""

    rule: SpanRule
    temperature: float
    teacher_S: Tensor
    """log T of every span of the micro-batch, at this temperature, in nats; those of the other term are not read."""


@dataclass(frozen=True)
class Likelihoods:
    """What there is to say about a micro-batch once log-probabilities are known."""

    positions: Positions
    names: frozenset[str]
    """Active ones of `OF_LIKELIHOOD`."""

    beta: float
    """Of the sequence signal."""

    reference_N: Tensor
    """log π_ref, in nats; empty without a sequence signal."""

    spans: Spans | None
    terms: Mapping[Term, SpanTerm]
    """Token signals with spans."""

    @property
    def temperatures(self) -> list[float]:
        """At which log-probabilities are needed."""
        return sorted({*([1.0] if self.names else []), *(term.temperature for term in self.terms.values())})

    @property
    def listens(self) -> bool:
        """A token's weight in the loss depends on other tokens."""
        return "sequence" in self.names or bool(self.terms)

    def results(self, heard: Heard, group: slice) -> dict[str, SignalResult]:
        """Signals over whole pairs, by row; under the name of its token signal what its spans add to it."""
        pairs = self.positions.pairs_in(group)
        found: dict[str, SignalResult] = {}
        if self.names:
            corpus, corpus_mask = padded(heard[1.0], self.positions, "off_policy", pairs)
        if "sequence" in self.names:
            rollout, _ = padded(heard[1.0], self.positions, "on_policy", pairs)
            anchors = (padded(self.reference_N[group], self.positions, term, pairs)[0].sum(-1) for term in _SIDES)
            policy, reference = PairLogprobs(corpus.sum(-1), rollout.sum(-1)), PairLogprobs(*anchors)
            found["sequence"] = sequence_signal(policy, reference, beta=self.beta)
        for name, signal in _ALONE.items():
            if name in self.names:
                found[name] = signal(corpus, corpus_mask)
        return found | {name: self._of_spans(name, heard[term.temperature], group) for name, term in self.terms.items()}

    def _of_spans(self, name: Term, logprob_n: Tensor, group: slice) -> SignalResult:
        assert self.spans is not None, "terms with spans have spans"
        pairs = self.positions.pairs_in(group)
        some, term = self.spans.within(pairs), self.terms[name]
        device = logprob_n.device
        mine = [i for i in range(some.start, some.stop) if self.spans.of_S[i] == name]
        number_n = self.spans.span_N[group]
        mine_S = sent(mine, device, torch.long)
        student_S = sum_spans(logprob_n, sent(number_n, device), len(self.spans.pair_S))[mine_S]
        value_S = term.rule(SpanLogprobs(student_S, term.teacher_S[mine_S]))
        row_S = sent(self.spans.pair_S[mine] - pairs.start, device)
        row_n = self.positions.pair_N[group][np.isin(number_n, mine)] - pairs.start
        rows = pairs.stop - pairs.start
        return SignalResult(
            value_S.new_zeros(rows).index_add(0, row_S, value_S),
            sent(np.bincount(row_n, minlength=rows), device),
        )

    def pulls(
        self, heard: Heard, group: slice, weights: Mapping[str, float], counts: Mapping[str, Tensor | float]
    ) -> dict[float, Tensor]:
        """∂L/∂log π of every token of whole pairs, by temperature: [n]."""
        with torch.enable_grad():
            leaves = {temperature: logprob_n.detach().requires_grad_() for temperature, logprob_n in heard.items()}
            loss = combine(self.results(leaves, group), weights, counts)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return {
            temperature: torch.zeros_like(leaf) if pull is None else pull
            for (temperature, leaf), pull in zip(leaves.items(), found, strict=True)
        }


_SIDES: tuple[Term, Term] = ("off_policy", "on_policy")
_ALONE = {"sft": sft_signal, "dft": dft_signal}
