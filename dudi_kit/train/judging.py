"""The judge of a micro-batch: losses of every chunk, and their gradient to the logits while these are there.

Shape suffixes: N the student's response tokens, n those of a chunk or strip, V its pieces.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dudi_kit.data.sending import sent
from dudi_kit.models.head import Head
from dudi_kit.recipe.schema.verbalizer import Term
from dudi_kit.signals.chunks import strips
from dudi_kit.signals.objective import combine
from dudi_kit.signals.result import SignalResult, Sums
from dudi_kit.signals.token import OBSERVED, Comparison
from dudi_kit.train.facing import Facing
from dudi_kit.train.likelihoods import Likelihoods
from dudi_kit.train.positions import Positions
from dudi_kit.train.told import Told
from dudi_kit.verbalizer.vocabulary.alignment import Columns


@dataclass
class Judge:
    """See `train.onepass.Judge`."""

    positions: Positions
    facing: Facing
    told: Told | None
    comparisons: Mapping[Term, Comparison]
    likelihoods: Likelihoods
    weights: Mapping[str, float]
    counts: Mapping[str, Tensor | float]
    """Valid items of each signal in the global batch."""

    head: Head | None
    """The student's; None where its logits are whole."""

    device: torch.device
    dtype: torch.dtype
    """To compute in."""

    value_N: Tensor = field(init=False)
    observed_N4: Tensor = field(init=False)
    heard: dict[float, Tensor] = field(init=False)
    pulls: dict[float, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.positions)
        self.value_N = torch.zeros(n, dtype=self.dtype, device=self.device)
        self.observed_N4 = torch.zeros(n, len(OBSERVED), dtype=self.dtype, device=self.device)
        self.heard = {t: torch.zeros_like(self.value_N) for t in self.likelihoods.temperatures}
        self.pulls = {t: torch.zeros_like(self.value_N) for t in self.heard}
        self.ids_N = sent(self.positions.ids, self.device, torch.long)
        self.weight_N = sum((self._shares(term, term) for term in self.comparisons), torch.zeros_like(self.value_N))
        self.sft_N, self.dft_N = (self._shares(name, "off_policy") for name in ("sft", "dft"))
        self.kind_N, self.kinds = self._kinds()

    @property
    def listens(self) -> bool:
        """Some term depends on a whole group's log-probabilities."""
        return self.likelihoods.listens

    def hear(self, logits_nV: Tensor, place: slice) -> None:
        """Note the log-probabilities of a part of a group."""
        for strip in strips(place, logits_nV.shape[1]):
            self._hear(logits_nV[_inside(strip, place)].to(self.dtype), strip)

    def weigh(self, group: slice) -> None:
        """How much each token's log-probability pulls."""
        if not self.listens or group.stop == group.start:
            return
        heard = {temperature: logprob_N[group] for temperature, logprob_N in self.heard.items()}
        for temperature, pull_n in self.likelihoods.pulls(heard, group, self.weights, self.counts).items():
            self.pulls[temperature][group] = pull_n

    def judge(self, logits_nV: Tensor, place: slice, out_nV: Tensor | None) -> None:
        """Note the losses of a chunk, and write their gradient."""
        told_nV = self._told(place)
        pieces = logits_nV.shape[1] if told_nV is None else max(logits_nV.shape[1], told_nV.shape[1])
        for strip in self._strips(place, pieces):
            inside = _inside(strip, place)
            strip_nV = logits_nV[inside].to(self.dtype)
            grad_nV, student_nV = self._compare(strip_nV, strip, told_nV, place)
            grad_nV = self._pull(strip_nV, strip, grad_nV, student_nV)
            if out_nV is not None:
                out_nV[inside] = grad_nV if self.head is None else self.head.slope_(grad_nV, strip_nV)

    def loss(self) -> Tensor:
        """L, a scalar in nats."""
        return combine(self.results, self.weights, self.counts)

    @cached_property
    def results(self) -> dict[str, SignalResult]:
        """Every active signal by row, once all has been judged; without a gradient."""
        everything = slice(0, len(self.positions))
        found = self.likelihoods.results(self.heard, everything)
        for term in self.comparisons:
            paired = self._token_result(term)
            if self.facing.spans is None:
                found[term] = paired
                continue
            nothing = SignalResult(torch.zeros_like(paired.total_B), torch.zeros_like(paired.count_B))
            found[term] = self._with_spans(term, paired, found.get(term, nothing))
        return {name: found[name] for name in self.weights}

    def _told(self, place: slice) -> Tensor | None:
        """The teacher's logits that face this chunk's tokens."""
        numbers_n = self.facing.told_N[place]
        faced_n = numbers_n[numbers_n >= 0]
        return None if self.told is None or not len(faced_n) else self.told.logits(faced_n)

    def _compare(
        self, strip_nV: Tensor, strip: slice, told_nV: Tensor | None, place: slice
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradient of the token signal, and the student's distribution where it was made on the way."""
        kind, faced_n = int(self.kind_N[strip.start]), self.facing.told_N[strip] >= 0
        if kind < 0 or told_nV is None or not faced_n.any():
            return None, None
        first = int((self.facing.told_N[place.start : strip.start] >= 0).sum())
        told_nV = told_nV[first : first + int(faced_n.sum())].to(self.dtype)
        if faced_n.all():
            compared = self.kinds[kind](strip_nV, told_nV)
            self.value_N[strip], self.observed_N4[strip] = compared.value_n, compared.observed_n4
            return compared.grad_nV.mul_(self.weight_N[strip, None]), compared.student_nV
        some = sent(np.flatnonzero(faced_n), self.device)
        compared = self.kinds[kind](strip_nV[some], told_nV)
        self.value_N[strip.start + some] = compared.value_n
        self.observed_N4[strip.start + some] = compared.observed_n4
        grad_nV = torch.zeros_like(strip_nV)
        return grad_nV.index_copy_(0, some, compared.grad_nV * self.weight_N[strip.start + some, None]), None

    def _pull(self, strip_nV: Tensor, strip: slice, grad_nV: Tensor | None, student_nV: Tensor | None) -> Tensor:
        """Add the gradient of log-probabilities: Σ pull·(1[said] − π)."""
        grad_nV = torch.zeros_like(strip_nV) if grad_nV is None else grad_nV
        if self.heard and not self.listens:
            self._hear(strip_nV, strip)
            self.pulls[1.0][strip] = -self.sft_N[strip] - self.dft_N[strip] * self.heard[1.0][strip].exp()
        for temperature, pull_N in self.pulls.items():
            pull_n1 = pull_N[strip, None] / temperature
            if student_nV is None or temperature != 1:
                softmax_nV = (strip_nV if temperature == 1 else strip_nV / temperature).softmax(-1)
            else:
                softmax_nV = student_nV
            grad_nV.addcmul_(softmax_nV, pull_n1, value=-1)
            said_n1 = self.ids_N[strip, None]  # one for each row, so that no sum is needed: CUDA's has no fixed order
            grad_nV.scatter_(1, said_n1, grad_nV.gather(1, said_n1) + pull_n1)
        return grad_nV

    def _hear(self, strip_nV: Tensor, strip: slice) -> None:
        for temperature, logprob_N in self.heard.items():
            warm_nV = strip_nV if temperature == 1 else strip_nV / temperature
            logprob_N[strip] = warm_nV.log_softmax(-1).gather(1, self.ids_N[strip, None]).squeeze(1)

    def _strips(self, place: slice, pieces: int) -> Iterator[slice]:
        """Strips of a chunk; in each, one comparison holds for all tokens."""
        changes = np.flatnonzero(np.diff(self.kind_N[place])) + 1 + place.start
        for start, stop in pairwise([place.start, *changes.tolist(), place.stop]):
            yield from strips(slice(start, stop), pieces)

    def _kinds(self) -> tuple[Columns, list[Comparison]]:
        """Which of the different comparisons is each token's; −1 where none."""
        kinds: list[Comparison] = []
        kind_N = np.full(len(self.positions), -1, dtype=np.int64)
        for term, comparison in self.comparisons.items():
            if comparison not in kinds:
                kinds.append(comparison)
            for segment in self.positions.of(term):
                kind_N[segment.place] = kinds.index(comparison)
        return kind_N, kinds

    def _shares(self, name: str, term: Term) -> Tensor:
        """Weight in the loss of each token of a term's responses, 0 of others: [N]."""
        share_N = np.zeros(len(self.positions))
        for segment in self.positions.of(term):
            share_N[segment.place] = self.weights.get(name, 0.0)
        count = sent(self.counts.get(name, 1.0), self.device, self.dtype)
        return sent(share_N, self.device, self.dtype) / count.clamp(min=1)

    def _token_result(self, term: Term) -> SignalResult:
        of_term_N = np.zeros(len(self.positions), dtype=bool)
        for segment in self.positions.of(term):
            of_term_N[segment.place] = True
        mask_N = sent(of_term_N & (self.facing.told_N >= 0), self.device)
        row_N = sent(self.positions.pair_N, self.device)
        rows = self.positions.pairs

        def by_row(values_N: Tensor) -> Tensor:
            return values_N.new_zeros(rows).index_add(0, row_N, values_N.masked_fill(~mask_N, 0))

        count_B = by_row(mask_N.long())
        observed = dict(zip(OBSERVED, self.observed_N4.unbind(-1), strict=True))
        metrics = {name: Sums(by_row(values_N), count_B) for name, values_N in observed.items()}
        return SignalResult(by_row(self.value_N), count_B, metrics)

    def _with_spans(self, term: Term, paired: SignalResult, spans: SignalResult) -> SignalResult:
        """Sums over both kinds of tokens; the count is of the student's tokens that the teacher has a word on."""
        tokens_B = torch.zeros(self.positions.pairs, dtype=torch.long)
        for segment in self.positions.of(term):
            tokens_B[segment.pair] = segment.place.stop - segment.place.start
        shares = {"full": paired.count_B, "span": spans.count_B}
        there_B = sent(tokens_B, self.device)
        coverage = {name: Sums(count_B.double(), there_B) for name, count_B in shares.items()}
        return SignalResult(
            paired.total_B + spans.total_B,
            paired.count_B + spans.count_B,
            {
                **paired.metrics,
                "span_loss": Sums(spans.total_B, spans.count_B),
                **{f"coverage_{name}": share for name, share in coverage.items()},
            },
        )


def _inside(strip: slice, place: slice) -> slice:
    return slice(strip.start - place.start, strip.stop - place.start)
