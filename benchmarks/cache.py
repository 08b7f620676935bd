"""What keeping a teacher's answers costs in bytes, and how far the loss is from that of the live teacher, on real text.

    python -m benchmarks.cache SIB200 TEACHER.gguf STUDENT.gguf [--sentences 4] [--work /tmp/kept]

Both models read the same sentences of SIB-200 in twelve languages, teacher and student of one vocabulary. The sketch is
made from the training split, as training makes it from its own rows; all is measured on the test split. For each way of
keeping: bytes a token; the mean of |D_kept − D_live| over tokens, for D = KL(π‖T) and KL(T‖π), beside D itself;
‖∇_kept − ∇_live‖ / ‖∇_live‖ of the gradient to the student's logits, over all tokens together; time to write and to
read a token, as a share of the teacher's own pass over it (one process, median of five).

`DistillKit k` is our own writing of its documented format (README of arcee-ai/DistillKit): ids of ceil(log2 V) bits,
the first log-probabilities in bf16, the others by a polynomial of the rank, fitted by least squares; what is missing is
one bucket on both sides, its `symmetric_uniform`. Its own losses have KL(T‖π); KL(π‖T) is taken over the same buckets.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.pairs import LANGUAGES, sentences, tokenise
from benchmarks.teachers import unpacked
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.models.cache.kept import keep, read, told, unpack
from dudi_kit.models.cache.sketch import Sketch, make_sketch
from dudi_kit.models.loading import freeze, load_model
from dudi_kit.train.keeping import SAMPLED, SAMPLED_OF_A_ROW

LONGEST = 96
"""Tokens of a sentence."""

AT_ONCE = 32
"""Positions whose logits are there at once."""

OURS = ((16, 16), (16, 32), (16, 64), (32, 64), (50, 64), (100, 128))
"""k and rank."""

THEIRS: dict[str, tuple[int, int, tuple[int | str, ...]]] = {
    "DistillKit k=50": (50, 1, (0, 1, "sqrt")),
    "DistillKit k=128": (128, 16, (0, 1, 2, 3, 4, "sqrt")),
}
"""k, exact ones and terms: its "budget pick" and its recommended setting."""


class Said(NamedTuple):
    """Hidden states and the head of a model, and the tokens that they predict."""

    hidden_NH: Tensor
    head_VH: Tensor
    ids_N: Tensor
    row_N: Tensor

    def logits(self, place: slice | Tensor) -> Tensor:
        return self.hidden_NH[place].float() @ self.head_VH.T


@torch.no_grad()
def say(model: Any, rows: Sequence[Sequence[int]], pieces: int) -> Said:
    hidden = [model.model(torch.tensor([ids])).last_hidden_state[0, :-1] for ids in rows]
    numbers = [torch.full((len(ids) - 1,), row) for row, ids in enumerate(rows)]
    head = model.get_output_embeddings().weight.detach().float()[:pieces]
    said = torch.cat([torch.tensor(ids[1:]) for ids in rows])
    return Said(torch.cat(hidden), head, said, torch.cat(numbers))


class Coarse(NamedTuple):
    """log T of some pieces and of all others together."""

    pieces_NK: Tensor
    logprob_NK: Tensor
    rest_N: Tensor


Kept = Tensor | Coarse
"""log T of every piece, or of some and the rest."""


class Way(NamedTuple):
    """How answers are kept: written, then read."""

    name: str
    write: Callable[[Tensor, Tensor], Any]
    read: Callable[[Any], Kept]
    size: Callable[[Any], int]


def our_way(sketch: Sketch, k: int, rank: int) -> Way:
    return Way(
        f"top_k, k {k}, rank {rank}",
        lambda logits_NV, ids_N: keep(logits_NV, ids_N, sketch, k).pack(sketch),
        lambda answer: told(read([unpack(answer, sketch)], sketch), sketch),
        len,
    )


def bucket_way(k: int) -> Way:
    """Exact probabilities and one bucket for the rest: what leaving out the sketch and all rounding would give."""

    def write(logits_NV: Tensor, _: Tensor) -> Coarse:
        logprob_NV = logits_NV.log_softmax(-1)
        top = logprob_NV.topk(k)
        return Coarse(top.indices, top.values, logprob_NV.scatter(-1, top.indices, -torch.inf).logsumexp(-1))

    return Way(f"k {k} exact and one bucket", write, lambda kept: kept, lambda kept: 0)


def their_way(name: str, pieces: int) -> Way:
    k, exact, terms = THEIRS[name]
    rank_K = torch.arange(k - exact, dtype=torch.float32)
    design_KT = torch.stack([rank_K.sqrt() if term == "sqrt" else rank_K ** int(term) for term in terms], dim=1)
    bits = math.ceil(math.log2(pieces))
    size = 2 * exact + 4 * len(terms) + math.ceil(k * bits / 8)

    def write(logits_NV: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        top = logits_NV.log_softmax(-1).topk(k)
        wanted_KN = top.values[:, exact:].T.double()
        terms_TN = torch.linalg.lstsq(design_KT.double(), wanted_KN).solution
        return top.indices, top.values[:, :exact].bfloat16(), terms_TN.float()

    def back(kept: tuple[Tensor, Tensor, Tensor]) -> Coarse:
        pieces_NK, exact_NE, terms_TN = kept
        logprob_NK = torch.cat([exact_NE.float(), (design_KT @ terms_TN).T], dim=-1)
        sum_N = logprob_NK.logsumexp(-1).clamp(max=-1e-6)
        return Coarse(pieces_NK, logprob_NK, torch.log(-torch.expm1(sum_N)))

    return Way(name, write, back, lambda kept: size * len(kept[0]))


class Errors:
    """Adds up what a way gets wrong."""

    def __init__(self) -> None:
        self.bytes = self.tokens = 0
        self.sums = dict.fromkeys(("reverse", "forward", "bias", "grad reverse", "grad forward"), 0.0)

    def add(self, live: dict[str, Tensor], found: dict[str, Tensor], size: int) -> None:
        self.bytes, self.tokens = self.bytes + size, self.tokens + len(live["reverse"])
        for name in ("reverse", "forward"):
            self.sums[name] += float((found[name] - live[name]).abs().sum())
            self.sums[f"grad {name}"] += float((found[f"grad {name}"] - live[f"grad {name}"]).square().sum())
        self.sums["bias"] += float((found["reverse"] - live["reverse"]).sum())

    def line(self, name: str, whole: "Live", times: str) -> str:
        each = {kind: total / self.tokens for kind, total in self.sums.items()}
        size = f"{self.bytes / self.tokens:.0f}" if self.bytes else "–"
        grads = " | ".join(f"{math.sqrt(self.sums[kind] / whole.squares[kind]):.3f}" for kind in whole.squares)
        errors = f"{each['reverse']:.4f} | {each['bias']:+.4f} | {each['forward']:.4f}"
        return f"| {name} | {size} | {errors} | {grads} | {times} |"


class Live:
    """Squares of the live gradients, to hold errors against; and means of the live divergences."""

    def __init__(self) -> None:
        self.squares = {"grad reverse": 0.0, "grad forward": 0.0}
        self.means = {"reverse": 0.0, "forward": 0.0}
        self.tokens = 0

    def add(self, live: dict[str, Tensor]) -> None:
        self.tokens += len(live["reverse"])
        for name in self.squares:
            self.squares[name] += float(live[name].square().sum())
        for name in self.means:
            self.means[name] += float(live[name].sum())


def judged(student_NV: Tensor, teacher: Kept) -> dict[str, Tensor]:
    """Both divergences and their gradients to the student's logits. student_NV: log π."""
    pi_NV = student_NV.exp()
    if isinstance(teacher, Tensor):
        ratio_NV = student_NV - teacher
        forward_N = -(teacher.exp() * ratio_NV).sum(-1)
        pull_NV = -teacher.exp()
    else:
        pieces, logprob, rest = teacher
        mine_rest_N = student_NV.scatter(-1, pieces, -torch.inf).logsumexp(-1)
        mine_NK = student_NV.gather(-1, pieces)
        ratio_NV = (mine_rest_N - rest).unsqueeze(-1).expand_as(student_NV).scatter(-1, pieces, mine_NK - logprob)
        forward_N = (logprob.exp() * (logprob - mine_NK)).sum(-1) + rest.exp() * (rest - mine_rest_N)
        pull_NV = -(pi_NV * (rest - mine_rest_N).exp().unsqueeze(-1)).scatter(-1, pieces, logprob.exp())
    reverse_N = (pi_NV * ratio_NV).sum(-1)
    return {
        "reverse": reverse_N,
        "forward": forward_N,
        "grad reverse": pi_NV * (ratio_NV - reverse_N.unsqueeze(-1)),
        "grad forward": pull_NV - pi_NV * pull_NV.sum(-1, keepdim=True),
    }


def sampled(said: Said) -> list[Tensor]:
    """Logits at evenly spaced positions of the sentences, as `TeacherAnswers` takes them."""
    found: list[Tensor] = []
    for row in said.row_N.unique():
        (numbers,) = (said.row_N == row).nonzero(as_tuple=True)
        chosen = torch.linspace(0, len(numbers) - 1, min(len(numbers), SAMPLED_OF_A_ROW)).round().long()
        found.append(said.logits(numbers[chosen]).bfloat16().clone())
        if sum(map(len, found)) >= SAMPLED:
            break
    return found


def clock(work: Callable[[], object]) -> float:
    """Seconds, the median of five."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)


def bare_pass(teacher: Any, rows: Sequence[Sequence[int]]) -> float:
    """Seconds a token of the teacher's own pass."""
    batch = torch.tensor([ids[:32] for ids in rows if len(ids) >= 32][:8])
    return clock(lambda: teacher(batch)) / batch.numel()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("teacher", type=Path)
    parser.add_argument("student", type=Path)
    parser.add_argument("--sentences", type=int, default=4, help="of each language, to measure")
    parser.add_argument("--work", type=Path, default=Path("/tmp/kept"))
    arguments = parser.parse_args()
    folders = {who: unpacked(getattr(arguments, who), arguments.work) for who in ("teacher", "student")}
    tokenizer = load_tokenizer(str(folders["teacher"].resolve()))

    def rows(split: str, count: int) -> list[list[int]]:
        texts = [sentences(arguments.text, code, split)[:count] for code in (*LANGUAGES, "en")]
        turns = (text for turn in zip(*texts, strict=True) for text in turn)
        return [tokenise(tokenizer, text)[:LONGEST] for text in turns]

    to_sample, to_measure = rows("train", -(-SAMPLED // (SAMPLED_OF_A_ROW * 12))), rows("test", arguments.sentences)
    models = {who: freeze(load_model(str(folder), who=who, dtype="bf16")) for who, folder in folders.items()}
    pieces = min(model.get_output_embeddings().weight.shape[0] for model in models.values())
    logits = sampled(say(models["teacher"], to_sample, pieces))
    teacher, student = (say(models[who], to_measure, pieces) for who in ("teacher", "student"))
    bare = bare_pass(models["teacher"], to_measure)
    models.clear()
    ways = [their_way(name, pieces) for name in THEIRS] + [bucket_way(k) for k in (50, 128)]
    sketches = {rank: make_sketch(logits, rank) for rank in sorted({rank for _, rank in OURS})}
    ways += [our_way(sketches[rank], k, rank) for k, rank in OURS]
    whole, errors = Live(), {way.name: Errors() for way in ways}
    for start in range(0, len(teacher.ids_N), AT_ONCE):
        place = slice(start, start + AT_ONCE)
        logits_NV, ids_N = teacher.logits(place), teacher.ids_N[place]
        student_NV = student.logits(place).log_softmax(-1)
        live = judged(student_NV, logits_NV.log_softmax(-1))
        whole.add(live)
        for way in ways:
            answer = way.write(logits_NV, ids_N)
            errors[way.name].add(live, judged(student_NV, way.read(answer)), way.size(answer))
    means = ", ".join(f"{name} KL {total / whole.tokens:.3f}" for name, total in whole.means.items())
    print(f"{folders['teacher'].name} → {folders['student'].name}, {whole.tokens:,} tokens, {pieces:,} pieces; {means}")
    print("| kept as | bytes a token | error KL(π‖T) | its mean | error KL(T‖π) | gradient | gradient | write | read |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    logits_NV, ids_N = teacher.logits(slice(0, AT_ONCE)), teacher.ids_N[:AT_ONCE]
    for way in ways:
        answer = way.write(logits_NV, ids_N)
        write, back = clock(lambda w=way: w.write(logits_NV, ids_N)), clock(lambda w=way, a=answer: w.read(a))
        times = f"{write / AT_ONCE / bare:.0%} | {back / AT_ONCE / bare:.0%}"
        print(errors[way.name].line(way.name, whole, times), flush=True)


if __name__ == "__main__":
    main()
