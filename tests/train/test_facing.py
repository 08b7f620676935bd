"""Token signals between two vocabularies, through the whole objective, in fp64."""

import copy
import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dudi_kit.data.chat import resolve_template
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Turn
from dudi_kit.models.generation import Continuation
from dudi_kit.models.reading import FEW
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.rollouts import Rollouts
from dudi_kit.recipe.schema.signals import Signals
from dudi_kit.train.builders import tensors_of
from dudi_kit.train.facing import facing
from dudi_kit.train.metrics import Window
from dudi_kit.train.step import Models, Objective, Padding, Pair
from dudi_kit.verbalizer.label_words.mass import KEPT
from dudi_kit.verbalizer.label_words.words import Moves
from dudi_kit.verbalizer.vocabulary.mapping import MappedVocabulary, Speaker, Wish, decide
from tests.small import ROWS, tokenizer
from tests.train.bench import leaves

PADDED = 8
"""Embedding rows beyond the tokenizer's pieces."""

KINDS: list[dict[str, Any]] = [
    {"type": "reverse_kl"},
    {"type": "forward_kl"},
    {"type": "jsd", "beta": 0.3},
    {"type": "skew_forward_kl"},
    {"type": "skew_reverse_kl"},
]


def permuted(made: Any, order: Sequence[int]) -> Any:
    """The same tokenizer, its piece i under the id order[i]."""
    described = json.loads(made.backend_tokenizer.to_str())
    described["model"]["vocab"] = {piece: order[i] for piece, i in described["model"]["vocab"].items()}
    for token in described["added_tokens"]:
        token["id"] = order[token["id"]]
    described["added_tokens"].sort(key=lambda token: token["id"])
    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)), eos_token=made.eos_token, pad_token=made.pad_token
    )
    resolve_template(other, "chatml", who="teacher")
    return other


def speaker(encoder: Encoder, rows: int) -> Speaker:
    pieces = encoder.tokenizer.get_vocab()
    return Speaker(
        encoder.who, pieces, rows, encoder.end_of_turn_id, encoder.stop_ids, encoder.tokenizer, encoder.text_ids
    )


def model(rows: int, seed: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=rows, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.4,
    )  # fmt: skip
    return LlamaForCausalLM(config).double().eval()


class Bench:
    """A student and a teacher with their tokenizers, and rows with a sample for each."""

    def __init__(self, order: Sequence[int] | None = None) -> None:
        made = tokenizer()
        self.size = len(made)
        other = made if order is None else permuted(made, order)
        self.student, self.teacher = Encoder(made, who="student"), Encoder(other, who="teacher")
        rows = self.size + PADDED
        learner, master = model(rows, 1), model(rows, 2).requires_grad_(False)
        if order is not None:
            master = self._permuted(master, order)
        self.models = Models(learner, master, None)
        self.few = 0
        self.keeping: Any = None

    def _permuted(self, master: Any, order: Sequence[int]) -> Any:
        moved = copy.deepcopy(master)
        with torch.no_grad():
            for matrix, old in ((moved.model.embed_tokens, master.model.embed_tokens), (moved.lm_head, master.lm_head)):
                matrix.weight[torch.tensor(order)] = old.weight[: self.size]
        return moved

    def decided(self, mapping: str) -> Any:
        rows = self.size + PADDED
        texts = [row["response"] for row in ROWS]
        return decide(speaker(self.student, rows), speaker(self.teacher, rows), Wish(mapping), texts)  # type: ignore[arg-type]

    def gradient(
        self, mapping: str, signals: dict[str, Any], rollouts: Rollouts | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradient of the whole objective."""
        joint = self.decided(mapping)
        mapped = joint if isinstance(joint, MappedVocabulary) else None
        off = {"sequence": {"weight": 0}, "off_policy": {"weight": 0}, "on_policy": {"weight": 0}}
        objective = Objective(
            Signals.model_validate(off | signals),
            padding=Padding(self.student.pad_id, self.teacher.pad_id),
            pieces=None if mapped else joint.size,
            mapped=mapped,
            rollouts=rollouts,
            few=self.few,
            keeping=self.keeping,
        )
        pairs = [self._pair(i, row, joint, objective) for i, row in enumerate(ROWS)]
        loss = objective(self.models, pairs, objective.counts(pairs)).loss
        return loss.detach(), list(torch.autograd.grad(loss, list(self.models.student.parameters())))

    def row(self, i: int, row: dict[str, str], joint: Any) -> Row:
        response = self.student.response_ids(row["response"])
        turns = [Turn("user", row["prompt"])]
        prompts = {term: self.teacher.prompt_ids(turns) for term in ("off_policy", "on_policy")}
        return Row(
            i, row["language"], "mine", self.student.prompt_ids(turns), response, prompts, reading=joint.read(response)
        )  # type: ignore[arg-type]

    def _pair(self, i: int, row: dict[str, str], joint: Any, objective: Objective) -> Pair:
        item = self.row(i, row, joint)
        # The tokenizer's own tokens of another text; every third one was cut.
        sample = self.student.response_ids(ROWS[(i + 5) % len(ROWS)]["response"])
        cut = i % 3 == 0
        return objective.pair(item, Continuation(sample[:-2] if cut else sample, ended=not cut))


def assert_same(a: tuple[Tensor, list[Tensor]], b: tuple[Tensor, list[Tensor]]) -> None:
    assert a[0] > 0.1
    torch.testing.assert_close(a[0], b[0], rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(a[1], b[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def same() -> Bench:
    return Bench()


@pytest.fixture(scope="module")
def shuffled() -> Bench:
    size = len(tokenizer())
    return Bench(torch.randperm(size, generator=torch.Generator().manual_seed(3)).tolist())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["type"])
@pytest.mark.parametrize("term", ["off_policy", "on_policy"])
def test_align_with_two_identical_tokenizers_is_shared(same, term, kind):
    signals = {term: {"weight": 1, "divergence": kind}}
    assert_same(same.gradient("align", signals), same.gradient("shared", signals))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["type"])
@pytest.mark.parametrize("term", ["off_policy", "on_policy"])
@pytest.mark.parametrize("mapping", ["remap", "align"])
def test_a_teacher_with_permuted_ids_is_shared(same, shuffled, mapping, term, kind):
    signals = {term: {"weight": 1, "divergence": kind}}
    assert_same(shuffled.gradient(mapping, signals), same.gradient("shared", signals))


def test_a_temperature_is_applied_before_pieces_are_put_together(same):
    signals = {"on_policy": {"weight": 1, "temperature": 2.0}}
    assert_same(same.gradient("align", signals), same.gradient("shared", signals))


def test_auto_finds_the_permutation(shuffled, same):
    assert shuffled.decided("auto").mapping == "remap"
    assert same.decided("auto").mapping == "shared"


class Coarse(Bench):
    """A teacher with a tokenizer of its own, so that there are spans and positions that do not face their like."""

    def __init__(self) -> None:
        super().__init__()
        other = tokenizer(["Kucing itu di bawah meja. The cat แมวอยู่ใต้"] * 4)
        self.teacher = Encoder(other, who="teacher")
        self.models = Models(self.models.student, model(len(other) + PADDED, 2).requires_grad_(False), None)

    def decided(self, mapping: str) -> Any:
        sides = speaker(self.student, self.size + PADDED), speaker(self.teacher, len(self.teacher.tokenizer) + PADDED)
        return decide(*sides, Wish(mapping), [row["response"] for row in ROWS])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def coarse() -> Coarse:
    return Coarse()


def by_hand(bench: Coarse, term: str, temperature: float = 1.0, *, sampled: bool = True) -> float:
    """The mean over taught tokens, one row and one token at a time: what predicts token t is what was said at t−1.

    sampled: the samples are an estimate, so that on-policy log π − log T of a span is all that is needed.
    """
    joint, total, count = bench.decided("align"), 0.0, 0
    objective = Objective(signals_of(term), padding=Padding(0, 0), pieces=None, mapped=joint)
    meet = tensors_of(joint.meeting)
    for i, row in enumerate(ROWS):
        pair = bench._pair(i, row, joint, objective)
        response, reading = pair.response(term), pair.read_by_teacher(term)  # type: ignore[arg-type]
        assert reading is not None
        mine = predictions(bench.models.student, pair.row.prompt, response) / temperature
        theirs = predictions(bench.models.teacher, pair.row.teacher_prompts[term], reading.ids) / temperature  # type: ignore[index]
        paired, spans, _ = reading.alignment
        for s, t in paired.tolist():
            student, teacher = meet.student(mine[s][None]), meet.teacher(theirs[t][None])
            total += float(kl_of(student[0].softmax(-1), teacher[0].softmax(-1)))
        for s0, s1, t0, t1 in spans.tolist():
            said = sum(float(mine[s].log_softmax(-1)[response[s]]) for s in range(s0, s1))
            heard = sum(float(theirs[t].log_softmax(-1)[reading.ids[t]]) for t in range(t0, t1))
            p, q = math.exp(said), math.exp(heard)
            two_outcomes = p * (said - heard) + (1 - p) * math.log((1 - p) / (1 - q))
            total += said - heard if term == "on_policy" and sampled else two_outcomes
            count += s1 - s0
        count += len(paired)
    return total / count


def predictions(asked: Any, prompt: list[int], response: list[int]) -> Tensor:
    logits = asked(input_ids=torch.tensor([prompt + response])).logits[0]
    return logits[len(prompt) - 1 : len(prompt) - 1 + len(response)].detach()


def kl_of(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


def signals_of(term: str) -> Signals:
    off = {"sequence": {"weight": 0}, "off_policy": {"weight": 0}, "on_policy": {"weight": 0}}
    return Signals.model_validate(off | {term: {"weight": 1}})


@pytest.mark.parametrize("term", ["off_policy", "on_policy"])
def test_two_tokenizers_by_hand(coarse, term):
    loss, gradient = coarse.gradient("align", {term: {"weight": 1}})
    assert float(loss) == pytest.approx(by_hand(coarse, term), rel=1e-6)
    assert max(part.abs().max() for part in gradient) > 1e-4


@pytest.mark.parametrize("term", ["off_policy", "on_policy"])
def test_a_temperature_is_that_of_spans_too(coarse, term):
    loss, _ = coarse.gradient("align", {term: {"weight": 1, "temperature": 2.0}}, Rollouts(temperature=2.0))
    assert float(loss) == pytest.approx(by_hand(coarse, term, 2.0), rel=1e-6)


@pytest.mark.parametrize("rollouts", [Rollouts(temperature=0.7), Rollouts(temperature=0), Rollouts(top_p=0.9)])
def test_spans_of_samples_that_are_no_estimate_are_compared_as_on_the_corpus(coarse, rollouts):
    loss, _ = coarse.gradient("align", {"on_policy": {"weight": 1}}, rollouts)
    assert float(loss) == pytest.approx(by_hand(coarse, "on_policy", sampled=False), rel=1e-6)


def test_a_planted_shift_of_the_teachers_columns_is_another_loss(coarse, monkeypatch):
    true = coarse.gradient("align", {"off_policy": {"weight": 1}})[0]

    def shifted(*arguments: Any) -> Any:
        faces = facing(*arguments)
        return replace(faces, told_N=np.where(faces.told_N > 0, faces.told_N - 1, faces.told_N))

    monkeypatch.setattr("dudi_kit.train.step.facing", shifted)
    assert abs(coarse.gradient("align", {"off_policy": {"weight": 1}})[0] - true) > 1e-3


def test_the_count_is_of_the_tokens_that_the_teacher_has_a_word_on(coarse):
    joint = coarse.decided("align")
    objective = Objective(signals_of("on_policy"), padding=Padding(0, 0), pieces=None, mapped=joint)
    pairs = [coarse._pair(i, row, joint, objective) for i, row in enumerate(ROWS)]
    result = objective(coarse.models, pairs, objective.counts(pairs)).results["on_policy"]
    assert objective.counts(pairs)["on_policy"] == int(result.count_B.sum())
    shares = {name: result.metrics[f"coverage_{name}"] for name in ("full", "span")}
    tokens = sum(len(pair.response("on_policy")) for pair in pairs)
    assert sum(float(share.total_B.sum()) for share in shares.values()) == result.count_B.sum() <= tokens
    assert all(share.count_B.sum() == tokens for share in shares.values())


class Declaring(Coarse):
    """Every other row declares a set of two labels, in the teacher's pieces: the mass goes on as the row's response."""

    def _pair(self, i: int, row: dict[str, str], joint: Any, objective: Objective) -> Pair:
        pair = super()._pair(i, row, joint, objective)
        assert pair.row.reading is not None
        begins = pair.row.reading.ids[:2]
        moves = Moves(sources=((40, 41), (42,)), targets=(tuple(begins), (begins[0], 50)), own=(begins[0],))
        return pair._replace(row=replace(pair.row, labels=moves if i % 2 == 0 else None))

    def prepared(self, signals: dict[str, Any], *, with_labels: bool) -> tuple[Objective, list[Pair]]:
        joint = self.decided("align")
        off = {"sequence": {"weight": 0}, "off_policy": {"weight": 0}, "on_policy": {"weight": 0}}
        objective = Objective(
            Signals.model_validate(off | signals), padding=Padding(self.student.pad_id, self.teacher.pad_id),
            pieces=None, mapped=joint, with_labels=with_labels,
        )  # fmt: skip
        return objective, [self._pair(i, row, joint, objective) for i, row in enumerate(ROWS)]

    def split(self, objective: Objective, pairs: list[Pair], size: int) -> tuple[dict[str, float], list[Tensor]]:
        """What is logged, and the gradient, with `size` rows at a time."""
        counts, window, losses = objective.counts(pairs), Window(["th"], torch.device("cpu")), []
        for start in range(0, len(pairs), size):
            part = pairs[start : start + size]
            loss, results = objective(self.models, part, counts)
            losses.append(loss)
            for name, result in results.items():
                window.add_signal(name, result, ["th"] * len(part), ["none"] * len(part))
        logged = leaves(window.summary(window.read_out(), objective.weights))
        return logged, list(torch.autograd.grad(torch.stack(losses).sum(), list(self.models.student.parameters())))


@pytest.fixture(scope="module")
def declaring() -> Declaring:
    return Declaring()


BOTH = {"off_policy": {"weight": 0.4, "divergence": {"type": "jsd", "beta": 0.3}}, "on_policy": {"weight": 0.6}}


@pytest.mark.parametrize("size", [1, 5])
def test_distributions_spans_and_label_words_do_not_depend_on_the_split(declaring, size):
    objective, pairs = declaring.prepared(BOTH, with_labels=True)
    assert any(len(pair.row.reading.alignment.spans_S4) for pair in pairs)
    (logged, ours), (expected, whole) = (declaring.split(objective, pairs, n) for n in (size, len(pairs)))
    assert logged == pytest.approx(expected, rel=1e-8, abs=1e-10)
    for mine, theirs in zip(ours, whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("few", [0, FEW])
def test_under_align_label_words_follow_the_teachers_own_tokens_of_the_response(declaring, few):
    """Its mass on a response that is a target grows by what was moved, along its own tokens and not the student's."""
    plain, moved = (
        declaring.prepared({"off_policy": {"weight": 1}}, with_labels=with_labels)[0] for with_labels in (False, True)
    )
    pairs = declaring.prepared({"off_policy": {"weight": 1}}, with_labels=True)[1]
    before, after = (told_by_row(objective, declaring.models, pairs, few) for objective in (plain, moved))
    different = 0
    for row, pair in enumerate(pairs):
        reading = pair.read_by_teacher("off_policy")
        assert reading is not None
        if pair.row.labels is None:
            assert torch.equal(before[row], after[row])
            continue
        first, second = reading.ids[:2]
        different += reading.ids[:2] != pair.row.response[:2]
        mass = (1 - KEPT) * before[row][0, [40, 41, 42]].sum()
        torch.testing.assert_close(after[row][0, first], before[row][0, first] + mass)
        word = (1 - KEPT) * before[row][0, [40, 41]].sum()
        torch.testing.assert_close(
            after[row][0, first] * after[row][1, second], before[row][0, first] * before[row][1, second] + word
        )
        assert torch.equal(before[row][2:], after[row][2:])
    assert different
    assert float(declaring.split(plain, pairs, 12)[0]["/loss"]) != float(declaring.split(moved, pairs, 12)[0]["/loss"])


def told_by_row(objective: Objective, asked: Models, pairs: list[Pair], few: int) -> list[Tensor]:
    """What the teacher says of the corpus, as probabilities: [Q, V] of each row."""
    objective.few = few
    with ExitStack() as opened:
        told, _ = objective._told(asked, pairs, opened)
        assert told is not None
        numbers = [np.arange(s.place.start, s.place.stop) for s in told.positions.of("off_policy")]
        return [told.logits(row).softmax(-1) for row in numbers]


def test_permuted_ids_have_no_spans_and_full_coverage(shuffled):
    joint = shuffled.decided("remap")
    objective = Objective(signals_of("on_policy"), padding=Padding(0, 0), pieces=None, mapped=joint)
    pairs = [shuffled._pair(i, row, joint, objective) for i, row in enumerate(ROWS)]
    metrics = objective(shuffled.models, pairs, objective.counts(pairs)).results["on_policy"].metrics
    tokens = sum(len(pair.response("on_policy")) for pair in pairs)
    assert float(metrics["coverage_full"].total_B.sum()) == tokens
    assert float(metrics["coverage_span"].total_B.sum()) == float(metrics["span_loss"].count_B.sum()) == 0
