"""The loss stage alone, from hidden states to the gradients of hidden states and head: peak memory and time.

    python -m benchmarks.loss            all of it, about a quarter of an hour; goes on where it was stopped
    python -m benchmarks.loss --quick    tiny sizes, seconds

Ways: ours (`loss_in_one_pass`, chunked, as the step calls it, with all that it logs), ours with whole logits (as below
`models.reading.FEW`), full logits with torch's autograd, TRL's `generalized_jsd_loss`, and Liger's
`LigerFusedLinearJSDLoss`. Student 896 wide, teacher 1,024, heads in fp32, and in bf16 too where the processor
multiplies that; 512 response tokens: 8 responses of 64, half of them samples where the sequence signal is there, whose
reference is known. Memory is the peak of a fresh process beyond weights, hidden states and the gradients of both; time
is by turns in one process, median of five.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from benchmarks.measure import (
    DTYPES,
    Results,
    arguments,
    begin,
    by_turns,
    line_through,
    medians,
    peak_beyond,
    table,
)
from dudi_kit.models.head import Head, Predictions
from dudi_kit.signals.chunks import chunk_positions, group_positions
from dudi_kit.signals.divergences import Divergence, forward_kl, jsd, reverse_kl
from dudi_kit.signals.token import OverPieces
from dudi_kit.train.facing import facing
from dudi_kit.train.heap import keep_heap
from dudi_kit.train.judging import Judge
from dudi_kit.train.likelihoods import Likelihoods
from dudi_kit.train.onepass import loss_in_one_pass
from dudi_kit.train.positions import Positions, positions_of
from dudi_kit.train.told import Told

STUDENT, TEACHER, RESPONSES, LENGTH, ROUNDS = 896, 1024, 8, 64, 5
DIVERGENCES: dict[str, tuple[Divergence, float]] = {
    "JSD ½": (jsd(0.5), 0.5),
    "forward KL": (forward_kl, 0.0),
    "reverse KL": (reverse_kl, 1.0),
}
"""And the β by which TRL and Liger know them."""

MOST_MB, MOST_TIME = 350, 1.1
"""Bounds at V = 151,936, 512 tokens, fp32, JSD ½: memory, and time against full logits."""


@dataclass
class Stage:
    """What goes into the loss stage."""

    student_NH: Tensor
    student_VH: Tensor
    teacher_NG: Tensor
    teacher_VG: Tensor
    ids_N: Tensor
    divergence: str
    sequence: bool
    responses: int

    @property
    def kept(self) -> int:
        """Bytes of the gradients that remain."""
        return sum(t.numel() * t.itemsize for t in (self.student_NH, self.student_VH))

    def forget(self) -> None:
        self.student_NH.grad = self.student_VH.grad = None


def stage_of(cell: Mapping[str, Any]) -> Stage:
    """cell: pieces, tokens, dtype, divergence, sequence; responses, if they are not 8."""
    torch.manual_seed(0)
    dtype, pieces, tokens = DTYPES[cell["dtype"]], cell["pieces"], cell["tokens"]

    def made(rows: int, width: int, size: float) -> Tensor:
        return (torch.randn(rows, width) * size).to(dtype)

    return Stage(
        student_NH=made(tokens, STUDENT, 1.0).requires_grad_(),
        student_VH=made(pieces, STUDENT, 0.05).requires_grad_(),
        teacher_NG=made(tokens, TEACHER, 1.0),
        teacher_VG=made(pieces, TEACHER, 0.05),
        ids_N=torch.randint(pieces, (tokens,)),
        divergence=cell["divergence"],
        sequence=cell["sequence"],
        responses=cell.get("responses", RESPONSES),
    )


# --- the ways


def ours(stage: Stage, *, whole: bool = False) -> None:
    """As `train.step.Objective` puts it together."""
    tokens, pairs = len(stage.ids_N), stage.responses // 2 if stage.sequence else stage.responses
    terms = ("off_policy", "on_policy") if stage.sequence else ("off_policy",)
    length, ids = tokens // pairs // len(terms), stage.ids_N.tolist()
    positions = positions_of(
        pairs, terms, lambda pair, term: ids[(pair * len(terms) + terms.index(term)) * length :][:length]
    )
    told = Told(Predictions(stage.teacher_NG, Head(stage.teacher_VG)), positions)
    # Half the weight on each of two means over half the tokens is the mean over all of them, as in the other ways.
    weights, counts = dict.fromkeys(terms, 1 / len(terms)), dict.fromkeys(terms, tokens / len(terms))
    if stage.sequence:
        weights, counts = weights | {"sequence": 1.0}, counts | {"sequence": float(pairs)}
    if whole:
        student = Predictions(stage.student_NH @ stage.student_VH.t())
    else:
        student = Predictions(stage.student_NH, Head(stage.student_VH))
    judge = Judge(
        positions=positions,
        facing=facing(positions, positions, lambda *_: None),
        told=told,
        comparisons=dict.fromkeys(terms, OverPieces(DIVERGENCES[stage.divergence][0])),
        likelihoods=likelihoods(positions, stage),
        weights=weights,
        counts=counts,
        head=student.head,
        device=stage.student_NH.device,
        dtype=torch.float32,
    )
    size = (group_positions if judge.listens else chunk_positions)(student.pieces, student.dtype)
    groups = list(positions.groups(size)) if judge.listens else [slice(0, tokens)]
    loss_in_one_pass(student, groups, judge, size).backward()


def likelihoods(positions: Positions, stage: Stage) -> Likelihoods:
    """The sequence signal's side, if it is there; its reference is frozen and known."""
    names, reference_N = (
        (frozenset({"sequence"}), -torch.ones(len(positions))) if stage.sequence else (frozenset(), None)
    )
    return Likelihoods(positions, names, 0.1, torch.zeros(0) if reference_N is None else reference_N, None, {})


def full(stage: Stage) -> None:
    """Whole logits, the formulas as one writes them down."""
    student_NV = stage.student_NH @ stage.student_VH.t()
    with torch.no_grad():
        teacher_NV = stage.teacher_NG @ stage.teacher_VG.t()
    p, q = (logits.float().log_softmax(-1) for logits in (student_NV, teacher_NV))
    if stage.divergence == "reverse KL":
        value_N = (p.exp() * (p - q)).sum(-1)
    elif stage.divergence == "forward KL":
        value_N = (q.exp() * (q - p)).sum(-1)
    else:
        mixture = torch.logaddexp(p, q) - np.log(2)
        value_N = 0.5 * (p.exp() * (p - mixture)).sum(-1) + 0.5 * (q.exp() * (q - mixture)).sum(-1)
    loss = value_N.mean()
    if stage.sequence:
        loss = loss + preference(p.gather(-1, stage.ids_N[:, None]).squeeze(-1), stage.responses)
    loss.backward()


def trl(stage: Stage) -> None:
    """TRL's loss, and torch's log-probabilities beside it."""
    from trl.experimental.gkd import GKDTrainer

    student_NV = stage.student_NH @ stage.student_VH.t()
    with torch.no_grad():
        teacher_NV = stage.teacher_NG @ stage.teacher_VG.t()
    beta = DIVERGENCES[stage.divergence][1]
    loss = GKDTrainer.generalized_jsd_loss(student_NV[None], teacher_NV[None], labels=stage.ids_N[None], beta=beta)
    if stage.sequence:
        loss = loss + preference(-cross_entropy(student_NV.float(), stage.ids_N, reduction="none"), stage.responses)
    loss.backward()


def liger(stage: Stage, *, chunk: int) -> None:
    """Liger's fused loss; it has no log-probabilities to give."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    fused = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0,
        weight_soft_loss=1.0,
        beta=DIVERGENCES[stage.divergence][1],
        compiled=False,
        chunk_size=chunk,
    )
    fused(stage.student_NH, stage.student_VH, stage.teacher_NG, stage.teacher_VG, stage.ids_N).backward()


def preference(logprob_N: Tensor, responses: int) -> Tensor:
    """The sequence signal: y is the first half of each pair's tokens, ỹ the second."""
    sums_P2 = (logprob_N + 1.0).view(responses // 2, 2, -1).sum(-1)
    return -logsigmoid(0.1 * (sums_P2[:, 0] - sums_P2[:, 1])).mean()


WAYS: dict[str, Callable[[Stage], None]] = {
    "ours": ours,
    "ours, whole logits": partial(ours, whole=True),
    "full logits": full,
    "TRL": trl,
    "Liger, chunks of 1,024 (its default)": partial(liger, chunk=1024),
    "Liger, chunks of 128": partial(liger, chunk=128),
}


def ways_of(cell: Mapping[str, Any]) -> list[str]:
    return [way for way in WAYS if not (cell["sequence"] and way.startswith("Liger"))]


BOUND = ["ours", "full logits"]
"""The two that the bounds are about."""


# --- cells


def measured(cell: Mapping[str, Any]) -> dict[str, Any]:
    """In a process of its own: the peak of one way, or the times of several."""
    keep_heap()  # as training does; all ways gain by it
    stage = stage_of(cell)
    if cell["of"] == "memory":
        warm = stage_of(cell | {"pieces": 64})  # what libraries hold from their first call on is not the stage's
        WAYS[cell["way"]](warm)
        return {"bytes": peak_beyond(partial(WAYS[cell["way"]], stage)) - stage.kept}

    def run(way: str) -> None:
        stage.forget()
        WAYS[way](stage)

    seconds = by_turns({way: partial(run, way) for way in cell["ways"]}, cell["rounds"])
    return {"seconds": medians(seconds), "rounds": seconds}


def name_of(cell: Mapping[str, Any]) -> str:
    signals = f"{cell['divergence']}{' and sequence' if cell['sequence'] else ''}"
    return f"{cell['pieces']:,} pieces, {cell['tokens']:,} tokens, {cell['dtype']}, {signals}"


def by_way(
    results: Results, cell: Mapping[str, Any], timed: list[str], weighed: list[str], rounds: int
) -> list[list[Any]]:
    """A row for each way whose peak is taken; of those that are timed, time and time against full logits as well."""
    asked = {"of": "time", "ways": timed, "rounds": rounds}
    times = results.cell(f"time: {name_of(cell)}", cell | asked)["seconds"]
    rows = []
    for way in weighed:
        peak = results.cell(f"memory: {name_of(cell)}, {way}", cell | {"of": "memory", "way": way})["bytes"]
        taken = [f"{times[way]:.2f}", f"{times[way] / times['full logits']:.2f}"] if way in times else ["", ""]
        rows.append([way, f"{peak / 1e6:,.0f}", *taken])
    return rows


def along_tokens(results: Results, cell: Mapping[str, Any], counts: list[int], rounds: int, length: int | None) -> None:
    """Cost against the number of tokens, and the line through it. length: of a response; None: 8 of them that grow."""
    rows, seconds, peaks = [], [], []
    said = f"responses of {length}" if length else f"{RESPONSES} responses"
    for tokens in counts:
        asked = cell | {"tokens": tokens, "responses": tokens // length if length else RESPONSES}
        timed = asked | {"of": "time", "ways": ["ours"], "rounds": rounds}
        time = results.cell(f"along tokens, {said}: {name_of(asked)}", timed)
        peak = results.cell(f"peak, {said}: {name_of(asked)}", asked | {"of": "memory", "way": "ours"})
        seconds.append(time["seconds"]["ours"])
        peaks.append(peak["bytes"] / 1e6)
        rows.append([f"{tokens:,}", f"{seconds[-1]:.3f}", f"{peaks[-1]:,.0f}"])
    print(f"\n{name_of(cell).partition(' tokens, ')[2]}, ours, against tokens, {said}:\n")
    print(table(["tokens", "seconds", "peak, MB"], rows))
    for what, values, unit in (("time", seconds, "s"), ("memory", peaks, "MB")):
        slope, intercept, r2 = line_through(counts, values)
        print(f"{what} = {intercept:.3g} {unit} + {1000 * slope:.3g} {unit} for 1,000 tokens, R² = {r2:.4f}  ")


def whole_or_chunked(results: Results, sizes: list[tuple[int, int]], rounds: int) -> None:
    """Where whole logits are quicker than chunks: what `models.reading.FEW` is set by."""
    rows = []
    for pieces, tokens in sizes:
        cell = {"pieces": pieces, "tokens": tokens, "dtype": "fp32", "divergence": "reverse KL", "sequence": True}
        asked = cell | {"of": "time", "ways": ["ours", "ours, whole logits"], "rounds": rounds}
        times = results.cell(f"few: {name_of(cell)}", asked)["seconds"]
        chunked, whole = times.values()
        size = f"2^{np.log2(pieces * tokens):.1f}"
        rows.append([f"{pieces:,}", f"{tokens:,}", size, f"{chunked:.4f}", f"{whole:.4f}", f"{chunked / whole:.2f}"])
    print("\nWhole logits or chunks, by tokens × pieces; fp32, reverse KL and sequence:\n")
    print(table(["pieces", "tokens", "product", "chunks, s", "whole, s", "chunks / whole"], rows))


def main(options: argparse.Namespace) -> None:
    results, quick = Results("loss", options, measured), options.quick
    tokens, rounds = (64, 1) if quick else (512, ROUNDS)
    small, usual, large = (500, 1_000, 2_000) if quick else (32_000, 151_936, 262_144)
    first = {"tokens": tokens, "pieces": usual, "dtype": "fp32", "divergence": "JSD ½", "sequence": False}
    every, against_trl = ways_of(first), [*BOUND, "TRL"]
    in_half = product(["bf16"] if options.dtype == "bf16" else [], (False, True))
    cells: list[tuple[dict[str, Any], list[str], list[str]]] = [
        # and what is timed of it, and whose peak is taken
        (first, every, every),
        *((first | {"divergence": name}, BOUND, BOUND) for name in ("forward KL", "reverse KL")),
        (first | {"sequence": True}, against_trl, against_trl),
        *((first | {"dtype": dtype, "sequence": sequence}, against_trl, BOUND) for dtype, sequence in in_half),
        *((first | {"pieces": pieces}, BOUND, every) for pieces in (small, large)),
    ]
    for cell, timed, weighed in cells:
        rows = by_way(results, cell, timed, weighed, rounds)
        print(f"\n{name_of(cell)}" + (f" (bounds: {MOST_MB} MB, {MOST_TIME})" if cell == first else "") + ":\n")
        print(table(["way", "peak, MB", "seconds", "time / full logits"], rows), flush=True)
    counts = [8, 16, 32] if quick else [128, 256, 512, 1024, 2048]
    for length in (4 if quick else LENGTH, None):
        along_tokens(results, first | {"sequence": True}, counts, rounds, length)
    sizes = [(500, 16)] if quick else list(product((1_000, 32_000, 151_936), (32, 64, 128, 256, 512)))
    whole_or_chunked(results, sizes, rounds)
    print(results.heading())


if __name__ == "__main__":
    begin(arguments(__doc__).parse_args(), main, measured)
