"""Label words in the step: what the teacher says changes where a row declares its set, and nothing else does."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dudi_kit.models.reading import FEW
from dudi_kit.recipe.schema.verbalizer import Term
from dudi_kit.train.metrics import Window
from dudi_kit.train.step import Objective, Padding, Pair
from dudi_kit.verbalizer.label_words.mass import KEPT
from dudi_kit.verbalizer.label_words.words import Moves
from tests.train.bench import leaves
from tests.train.test_objective_gradient import ITEMS, PAD, PIECES, WHOLE, gradients, models, pair, settings

LABELS = Moves(sources=((30, 31), (32,)), targets=((9, 2), (9, 12)), own=(9, 24))
"""Two labels whose targets begin alike; the first response is the first target, the second sample is neither."""


def objective(*, with_labels: bool = True) -> Objective:
    return Objective(settings(WHOLE), padding=Padding(PAD, PAD), pieces=PIECES, with_labels=with_labels)


def pairs(*declaring: int) -> list[Pair]:
    """The rows of the reference; those of these numbers declare their labels."""
    made = [pair(i, item) for i, item in enumerate(ITEMS)]
    return [p._replace(row=replace(p.row, labels=LABELS)) if p.row.index in declaring else p for p in made]


@pytest.mark.parametrize("few", [0, FEW])
def test_only_the_teacher_s_logits_of_declaring_rows_change(few: int) -> None:
    def told(made: Objective, rows: list[Pair], term: Term) -> list[Tensor]:
        made.few = few
        with ExitStack() as opened:
            found, _ = made._told(models(), rows, opened)
            assert found is not None
            numbers = [np.arange(s.place.start, s.place.stop) for s in found.positions.of(term)]
            return [found.logits(row).clone() for row in numbers]

    terms: tuple[Term, ...] = ("off_policy", "on_policy")
    plain = {term: told(objective(with_labels=False), pairs(), term) for term in terms}
    moved = {term: told(objective(), pairs(0), term) for term in terms}
    for term in terms:
        before, after = plain[term], moved[term]
        assert all(torch.equal(a, b) for a, b in zip(before[1:], after[1:], strict=True))
        assert torch.equal(before[0][4:], after[0][4:])
        first, then = before[0][0].softmax(-1), after[0][0].softmax(-1)
        mass = (1 - KEPT) * first[[30, 31, 32]].sum()
        torch.testing.assert_close(then[9], first[9] + mass)
        torch.testing.assert_close(then[[30, 31, 32]], KEPT * first[[30, 31, 32]])
    corpus = moved["off_policy"][0][1].softmax(-1)
    assert corpus[2] + corpus[12] > plain["off_policy"][0][1].softmax(-1)[[2, 12]].sum()  # y begins with 9


def test_with_labels_that_no_row_declares_every_value_and_gradient_stays() -> None:
    def learned(made: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        asked, rows = models(), pairs()
        loss = made(asked, rows, made.counts(rows)).loss
        return loss.detach(), gradients(loss, asked.student)

    (loss, gradient), (expected, expected_gradient) = learned(objective()), learned(objective(with_labels=False))
    assert torch.equal(loss, expected)
    assert all(torch.equal(value, expected_gradient[name]) for name, value in gradient.items())


def test_the_mass_is_logged_of_declaring_rows_by_language_and_by_term() -> None:
    made, rows = objective(), pairs(0, 3)
    metrics = {name: result.metrics for name, result in made(models(), rows, made.counts(rows)).results.items()}
    assert "label_mass_moved" not in metrics["sft"]
    for name in ("off_policy", "on_policy"):
        moved, at_home = (metrics[name][f"label_mass_{what}"] for what in ("moved", "at_home"))
        assert moved.count_B.tolist() == at_home.count_B.tolist() == [1, 0, 0, 1, 0, 0]
        assert (moved.total_B > 0).tolist() == [True, False, False, True, False, False]
        assert (moved.total_B + at_home.total_B <= 1).all()
    plain = objective(with_labels=False)
    results = plain(models(), rows, plain.counts(rows)).results
    first, again = (results[name].metrics for name in ("off_policy", "on_policy"))
    assert "label_mass_moved" not in {*first, *again}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_add_up_to_the_whole_batch(size: int) -> None:
    made, rows, asked = objective(), pairs(0, 1, 4), models()
    counts = made.counts(rows)

    def run(parts: list[list[Pair]]) -> tuple[dict[str, Tensor], dict[str, float]]:
        window = Window(["id"], torch.device("cpu"))
        losses = []
        for part in parts:
            loss, results = made(asked, part, counts)
            losses.append(loss)
            for name, result in results.items():
                window.add_signal(name, result, ["id"] * len(part), ["none"] * len(part))
        line = window.summary(window.read_out(), made.weights)
        return gradients(torch.stack(losses).sum(), asked.student), leaves(line)

    (ours, logged), (whole, expected) = run([rows[i : i + size] for i in range(0, len(rows), size)]), run([rows])
    assert logged == pytest.approx(expected, rel=1e-8, abs=1e-10)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-8, atol=1e-8)


def test_the_teacher_gets_no_gradient_and_keeps_its_weights() -> None:
    asked = models()
    teacher = copy.deepcopy(asked.teacher)
    assert teacher is not None
    teacher.requires_grad_()
    before = copy.deepcopy(teacher.state_dict())
    made, rows = objective(), pairs(0)
    made(asked._replace(teacher=teacher), rows, made.counts(rows)).loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    asked.student.zero_grad()
