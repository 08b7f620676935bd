"""Value and gradient of the whole objective against `reference.py`, in fp64, on real transformers of two layers."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from dudi_kit.data.batches import Batch, Sharing
from dudi_kit.models.generation import Continuation
from dudi_kit.models.head_form import head_form
from dudi_kit.models.reading import FEW, Places, predictions
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.signals import Signals
from dudi_kit.train.step import Models, Objective, Padding, Pair
from tests.train import reference
from tests.train.reference import Item, Terms

PIECES, TEACHER_ROWS = 40, 48
EOS = PAD = 39
"""Pad is eos: only lengths can tell them apart."""

SHAPE: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.5,
}  # fmt: skip

DIVERGENCES = [
    ("reverse_kl", 0.0), ("forward_kl", 0.0), ("jsd", 0.3), ("skew_forward_kl", 0.2), ("skew_reverse_kl", 0.2),
]  # fmt: skip

ITEMS = [
    # prompts of different lengths, the teacher's with a demonstration before them
    Item([3, 1, 4, 1, 5], [9, 2, 6, EOS], [5, 3, 5, 8, EOS], [3, 1, 4, 1, 5], [30, 31, 32, 3, 1, 4, 1, 5]),
    # more than 16 tokens on each side: the padded width is another one here
    Item(list(range(1, 20)), [7, 7, 7, EOS], [(3 * i) % 37 for i in range(18)], list(range(1, 20)), list(range(1, 36))),
    # responses of one token: only an end of turn, and a sample that was cut at once
    Item([2], [EOS], [11], [2], [33, 2]),
    # a corpus response that was cut, so without EOS; a sample that ended; pad ids inside prompt and response
    Item([EOS, 8, EOS], [12, EOS, 13, 14], [EOS], [EOS, 8, EOS, 8], [EOS, 8]),
    # y and ỹ are the same
    Item([21, 22, 23], [24, 25, EOS], [24, 25, EOS], [21, 22, 23], [34, 21, 22, 23]),
    # a long response beside a short sample
    Item([20, 19], [(5 * i) % 38 for i in range(21)] + [EOS], [6, 7, EOS], [20, 19], [20, 19]),
]

WHOLE = Terms(alpha=0.7, off=0.4, on=0.9, sft=0.3, dft=0.2, beta=0.25, pieces=PIECES)


class ExactNorm(nn.Module):
    """RMS norm in the dtype that it is given; that of transformers goes through fp32."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps)


class ExactRotary(nn.Module):
    """Rotary angles in the dtype of the model."""

    def __init__(self, head: int) -> None:
        super().__init__()
        self.frequencies = 10_000 ** -(torch.arange(0, head, 2, dtype=torch.float64) / head)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[..., None].to(x.dtype) * self.frequencies
        angles = torch.cat([angles, angles], -1)
        return angles.cos(), angles.sin()


def in_fp64(model: Any) -> Any:
    model = model.double()
    model.model.rotary_emb = ExactRotary(SHAPE["hidden_size"] // SHAPE["num_attention_heads"])
    model.model.norm = ExactNorm(model.model.norm)
    for layer in model.model.layers:
        layer.input_layernorm = ExactNorm(layer.input_layernorm)
        layer.post_attention_layernorm = ExactNorm(layer.post_attention_layernorm)
    return model.eval()


def qwen(rows: int, seed: int, *, tied: bool = False) -> Any:
    torch.manual_seed(seed)
    model = in_fp64(Qwen2ForCausalLM(Qwen2Config(vocab_size=rows, tie_word_embeddings=tied, **SHAPE)))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero at the start, and then some gradients would be, too
            nn.init.normal_(parameter, std=0.3)
    return model


def llama(rows: int, seed: int, *, tied: bool = False) -> Any:
    torch.manual_seed(seed)
    return in_fp64(LlamaForCausalLM(LlamaConfig(vocab_size=rows, tie_word_embeddings=tied, **SHAPE)))


@cache
def models(
    student_rows: int = PIECES, teacher_rows: int = TEACHER_ROWS, *, family: Any = qwen, tied: bool = False
) -> Models:
    student = family(student_rows, 1, tied=tied)
    anchor = copy.deepcopy(student).requires_grad_(False)
    with torch.no_grad():
        for parameter in anchor.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return Models(student, llama(teacher_rows, 2).requires_grad_(False), anchor)


# --- the two sides


def by_reference(asked: Models, items: Sequence[Item], terms: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    loss = reference.objective(asked.student, asked.teacher, asked.reference, items, terms)
    return loss.detach(), gradients(loss, asked.student)


def by_package(
    asked: Models,
    items: Sequence[Item],
    terms: Terms,
    splits: Iterable[slice] = (slice(None),),
    *,
    few: int = 0,
    packing: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Micro-batches are weighed with the counts of the whole batch; losses add up. few: 0 computes the heads here."""
    objective = Objective(settings(terms), padding=Padding(PAD, PAD), pieces=terms.pieces, few=few, packing=packing)
    pairs = [pair(i, item) for i, item in enumerate(items)]
    counts = objective.counts(pairs)
    loss = torch.stack([objective(asked, pairs[part], counts).loss for part in splits]).sum()
    return loss.detach(), gradients(loss, asked.student)


def gradients(loss: Tensor, student: nn.Module) -> dict[str, Tensor]:
    named = dict(student.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def settings(terms: Terms) -> Signals:
    def token(weight: float, kind: tuple[str, float], temperature: float) -> dict[str, Any]:
        name, share = kind
        shares = {"jsd": {"beta": share}, "skew_forward_kl": {"alpha": share}, "skew_reverse_kl": {"alpha": share}}
        return {"weight": weight, "temperature": temperature, "divergence": {"type": name, **shares.get(name, {})}}

    return Signals.model_validate(
        {
            "sequence": {"weight": terms.alpha, "beta": terms.beta},
            "off_policy": token(terms.off, terms.divergence_off, terms.temperature_off),
            "on_policy": token(terms.on, terms.divergence_on, terms.temperature_on),
            "sft": {"weight": terms.sft},
            "dft": {"weight": terms.dft},
        }
    )


def pair(index: int, item: Item) -> Pair:
    prompts = {"off_policy": item.teacher_prompt_off, "on_policy": item.teacher_prompt_on}
    row = Row(index, "id", "mine", item.prompt, item.response, prompts)  # type: ignore[arg-type]
    return Pair(row, Continuation(item.rollout, ended=item.rollout[-1] == EOS))


def assert_same(
    ours: tuple[Tensor, dict[str, Tensor]], theirs: tuple[Tensor, dict[str, Tensor]], *, every: bool = True
) -> None:
    """Loss and every gradient to 1e-8. every: each parameter must have a gradient worth comparing."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-8, atol=1e-8)
    assert ours[1].keys() == theirs[1].keys()
    for name, expected in theirs[1].items():
        if every:
            assert expected.abs().max() > 1e-4, f"{name}: nothing to compare"
        said = f"{name}: {{}}".format
        torch.testing.assert_close(ours[1][name], expected, rtol=1e-8, atol=1e-8, msg=said)


def compare(terms: Terms, items: Sequence[Item] = tuple(ITEMS), asked: Models | None = None) -> None:
    asked = asked or models()
    expected = by_reference(asked, items, terms)
    for few in (0, FEW):
        assert_same(by_package(asked, items, terms, few=few), expected)
    assert_same(by_package(asked, items, terms, packing=True), expected)


def without(item: Item) -> Item:
    """The row without its ends of turn, where something else is left."""
    cut = {name: [t for t in getattr(item, name) if t != EOS] for name in ("response", "rollout")}
    return replace(item, **{name: ids for name, ids in cut.items() if ids})


# --- what it proves


@pytest.mark.parametrize("kind", DIVERGENCES, ids=lambda kind: kind[0])
def test_whole_objective_and_its_gradient_equal_the_reference(kind):
    compare(replace(WHOLE, divergence_off=kind, divergence_on=kind))


@pytest.mark.parametrize("name", ["alpha", "sft", "dft"])
def test_each_likelihood_signal_alone_equals_the_reference(name):
    compare(Terms(**{name: 1.5}, beta=0.25, pieces=PIECES))


@pytest.mark.parametrize("name", ["off", "on"])
@pytest.mark.parametrize("kind", DIVERGENCES, ids=lambda kind: kind[0])
def test_each_token_signal_alone_equals_the_reference(name, kind):
    compare(Terms(**{name: 1.5, f"divergence_{name}": kind}, pieces=PIECES))


@pytest.mark.parametrize("tied", [False, True])
def test_a_llama_student_equals_the_reference_with_and_without_tied_embeddings(tied):
    compare(WHOLE, asked=models(family=llama, tied=tied))


def test_a_divergence_and_a_temperature_of_its_own_for_each_token_signal():
    kinds = {"divergence_off": ("forward_kl", 0.0), "divergence_on": ("jsd", 0.7)}
    compare(replace(WHOLE, **kinds, temperature_off=2.0, temperature_on=0.6))


@pytest.mark.parametrize("other", [{"off": 0.0}, {"on": 0.0}], ids=["on_policy alone", "off_policy alone"])
def test_a_teacher_that_reads_one_side_only_is_lined_up_with_a_student_that_reads_both(other):
    # y and ỹ are then padded to other widths for the student than for the teacher
    compare(replace(WHOLE, **other))


@pytest.mark.parametrize("other", [{"alpha": 0.0, "on": 0.0}, {"alpha": 0.0, "off": 0.0, "sft": 0.0, "dft": 0.0}])
def test_a_student_that_reads_one_side_only_equals_the_reference(other):
    compare(replace(WHOLE, **other))


def test_surplus_embedding_rows_of_the_teacher_change_nothing_but_their_absence():
    asked = models()
    terms = replace(WHOLE, divergence_off=("forward_kl", 0.0))
    loss, _ = by_package(asked, ITEMS, terms)
    louder = copy.deepcopy(asked.teacher)
    with torch.no_grad():
        louder.lm_head.weight[PIECES:] *= 50
    torch.testing.assert_close(by_package(asked._replace(teacher=louder), ITEMS, terms)[0], loss, rtol=0, atol=0)


def test_surplus_embedding_rows_of_the_student_are_cut_for_the_teacher_and_kept_for_its_own_likelihood():
    compare(WHOLE, asked=models(student_rows=44, teacher_rows=PIECES))


def test_end_of_turn_is_inside_every_loss_though_pad_is_eos():
    cut = [without(item) for item in ITEMS]
    for name in ("alpha", "off", "on", "sft", "dft"):
        terms = Terms(**{name: 1.0}, pieces=PIECES)
        with_end, without_end = by_package(models(), ITEMS, terms)[0], by_reference(models(), cut, terms)[0]
        assert abs(with_end - without_end) > 1e-4, name
        torch.testing.assert_close(by_package(models(), cut, terms)[0], without_end, rtol=1e-8, atol=1e-8)


def test_a_cut_sample_is_not_rewarded_for_an_end_it_lacks():
    # the same rows with an end of turn after each cut sample: another loss, so none was added before
    ended = [replace(item, rollout=item.rollout if item.rollout[-1] == EOS else [*item.rollout, EOS]) for item in ITEMS]
    for terms in (Terms(alpha=1.0, pieces=PIECES), Terms(on=1.0, pieces=PIECES)):
        assert abs(by_package(models(), ITEMS, terms)[0] - by_package(models(), ended, terms)[0]) > 1e-4


def test_a_demonstration_reaches_the_on_policy_signal_alone():
    bare = [replace(item, teacher_prompt_on=item.prompt) for item in ITEMS]
    losses = {}
    for name in ("off", "on"):
        terms = Terms(**{name: 1.0}, pieces=PIECES)
        losses[name] = by_package(models(), ITEMS, terms)[0] - by_package(models(), bare, terms)[0]
    assert losses["off"] == 0
    assert abs(losses["on"]) > 1e-3


@pytest.mark.parametrize("item", ITEMS[:4], ids=["short", "long prompt", "one token", "cut response"])
def test_a_batch_of_one_row_equals_the_reference(item):
    asked = models()
    assert_same(by_package(asked, [item], WHOLE), by_reference(asked, [item], WHOLE), every=False)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_add_up_to_the_whole_batch(size):
    splits = [slice(start, start + size) for start in range(0, len(ITEMS), size)]
    asked = models()
    assert_same(by_package(asked, ITEMS, WHOLE, splits), by_reference(asked, ITEMS, WHOLE))


@pytest.mark.parametrize("known", [True, False], ids=["the pass ends at hidden states", "the model computes logits"])
def test_rows_that_share_lines_teach_the_same(monkeypatch, known):
    """That lines are shared at all is seen in tests/data; `compare` packs everywhere else, too."""
    asked = models()
    expected = by_package(asked, ITEMS, WHOLE)
    if not known:
        monkeypatch.setattr("dudi_kit.models.reading.head_form", lambda _: None)
    assert_same(by_package(asked, ITEMS, WHOLE, packing=True), expected)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("few", [0, FEW])
def test_rows_that_share_their_prompt_change_nothing(monkeypatch, packing, few):
    """Of the student y and ỹ of every row, of the teacher those of the rows whose two prompts are alike."""
    asked, seen = models(), watched_batches(monkeypatch)
    monkeypatch.setattr("dudi_kit.train.step.sharing_of", lambda _: None)
    expected = by_package(asked, ITEMS, WHOLE, few=few)
    seen.clear()
    monkeypatch.setattr("dudi_kit.train.step.sharing_of", lambda _: Sharing(hidden=10_000, window=None))
    monkeypatch.setattr("dudi_kit.data.batches._least_work", lambda rows, layouts, *_: layouts[-1])  # shared, if any
    assert_same(by_package(asked, ITEMS, WHOLE, few=few, packing=packing), expected)
    teacher, anchor, student = seen
    assert student.sees() is not None
    assert student is anchor
    assert teacher.sees() is not None
    if not packing:
        assert [len(batch.input_ids_LT) for batch in (teacher, student)] == [2 * len(ITEMS) - 1, len(ITEMS)]


def test_each_model_says_for_itself_whether_it_reads_rows_that_share_their_prompt(monkeypatch):
    seen, wide = watched_batches(monkeypatch), Sharing(hidden=10_000, window=None)
    monkeypatch.setattr("dudi_kit.train.step.sharing_of", lambda of: wide if of.model_type == "qwen2" else None)
    by_package(models(), ITEMS, WHOLE)
    assert [batch.sees() is None for batch in seen] == [True, False, False]  # the teacher is a llama


def watched_batches(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Those of teacher, reference and student, once they are asked."""
    seen: list[Batch] = []

    def watched(model: nn.Module, batch: Batch, places: Places, *, few: int) -> Any:
        seen.append(batch)
        return predictions(model, batch, places, few=few)

    monkeypatch.setattr("dudi_kit.train.step.predictions", watched)
    return seen


def test_order_of_the_rows_changes_nothing():
    asked = models()
    assert_same(by_package(asked, ITEMS[::-1], WHOLE), by_package(asked, ITEMS, WHOLE))


def test_teacher_and_reference_get_no_gradient():
    asked = models()
    teacher, anchor = copy.deepcopy(asked.teacher).requires_grad_(), copy.deepcopy(asked.reference).requires_grad_()
    objective = Objective(settings(WHOLE), padding=Padding(PAD, PAD), pieces=PIECES)
    pairs = [pair(i, item) for i, item in enumerate(ITEMS)]
    with_gradients = asked._replace(teacher=teacher, reference=anchor)
    objective(with_gradients, pairs, objective.counts(pairs)).loss.backward()
    assert all(parameter.grad is None for model in (teacher, anchor) for parameter in model.parameters())
    asked.student.zero_grad()


def test_logged_means_are_the_terms_of_the_reference():
    asked, terms = models(), replace(WHOLE)
    by_reference(asked, ITEMS, terms)
    objective = Objective(settings(terms), padding=Padding(PAD, PAD), pieces=PIECES)
    pairs = [pair(i, item) for i, item in enumerate(ITEMS)]
    results = objective(asked, pairs, objective.counts(pairs)).results
    means = {name: float(result.total_B.detach().sum() / result.count_B.sum()) for name, result in results.items()}
    assert means == pytest.approx(terms.values, rel=1e-10)


@pytest.mark.parametrize("family", [qwen, llama])
def test_the_heads_of_these_models_are_known(family):
    asked = models(family=family)
    for model in asked:
        assert head_form(model) is not None


@pytest.mark.parametrize("chunk", [1, 3, 10, 64], ids="{} tokens a chunk".format)
@pytest.mark.parametrize("strip", [1, 2, 1000], ids="{} tokens a strip".format)
def test_chunks_and_strips_of_any_size_change_nothing(monkeypatch, chunk, strip):
    # responses have 1 to 22 tokens: pairs that fit into a chunk, several in one, and longer ones
    monkeypatch.setattr("dudi_kit.signals.chunks.CHUNK_BYTES", chunk * PIECES * 8)
    monkeypatch.setattr("dudi_kit.signals.chunks.STRIP_ELEMENTS", strip * PIECES)
    for terms in (WHOLE, Terms(sft=1.0, dft=0.5, off=1.0, pieces=PIECES)):
        compare(terms)
