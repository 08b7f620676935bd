"""Spans and buckets: estimators against enumeration, gradients against finite differences, and the order of KLs."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dudi_kit.signals.divergences import (
    Divergence,
    forward_kl,
    jsd,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
)
from dudi_kit.signals.meeting import Buckets, bucket_logits, meeting_of
from dudi_kit.signals.spans import SpanLogprobs, sampled_reverse_kl, sum_spans, two_outcomes
from dudi_kit.signals.token import OverBuckets

KINDS: dict[str, Divergence] = {
    "reverse_kl": reverse_kl,
    "forward_kl": forward_kl,
    "jsd": jsd(0.3),
    "skew_forward_kl": skew_forward_kl(0.2),
    "skew_reverse_kl": skew_reverse_kl(0.2),
}

SIZE, LENGTH = 4, 2
"""Pieces and tokens of the toy student; the toy teacher says each of its 16 spans with one piece of its own."""


def tensor(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.long)


def buckets(first: list[int], more: list[int] = (), of: list[int] = (), rest: list[int] = ()) -> Buckets:  # type: ignore[assignment]
    return Buckets(tensor(*first), tensor(*more), tensor(*of), tensor(*rest))


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Toy:
    """A student that says spans of two tokens, the second depending on the first, and a teacher of whole spans."""

    def __init__(self) -> None:
        self.first, self.second = logits(SIZE, seed=1).requires_grad_(), logits(SIZE, SIZE, seed=2).requires_grad_()
        self.teacher = logits(SIZE**LENGTH, seed=3).log_softmax(-1)
        self.parameters = [self.first, self.second]

    def logprobs(self, spans: Tensor) -> SpanLogprobs:
        """spans: [S, 2] student pieces."""
        one, two = spans.T
        token_logprobs = torch.stack([self.first.log_softmax(-1)[one], self.second.log_softmax(-1)[one, two]], dim=-1)
        number = torch.arange(len(spans))[:, None].expand(-1, LENGTH)
        return SpanLogprobs(sum_spans(token_logprobs, number, len(spans)), self.teacher[one * SIZE + two])

    def gradient(self, value: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, self.parameters)])


ALL = torch.tensor(list(itertools.product(range(SIZE), repeat=LENGTH)))


def test_the_span_estimator_is_unbiased_by_enumeration_and_its_sampled_gradient_within_its_standard_error():
    toy = Toy()
    student, teacher = toy.logprobs(ALL)
    kl = (student.exp() * (student - teacher)).sum()
    exact = toy.gradient(kl)
    # The expectation over all spans: each one's estimate weighed by its probability.
    weighed = (student.exp().detach() * sampled_reverse_kl(toy.logprobs(ALL))).sum()
    torch.testing.assert_close(weighed, kl)
    torch.testing.assert_close(toy.gradient(weighed), exact)
    # And by sampling, as in training.
    drawn = torch.multinomial(
        student.exp().detach(), 4_000, replacement=True, generator=torch.Generator().manual_seed(5)
    )
    each = torch.stack([toy.gradient(sampled_reverse_kl(toy.logprobs(ALL[i : i + 1])).sum()) for i in range(len(ALL))])[
        drawn
    ]
    error = each.std(0) / math.sqrt(len(drawn))
    assert ((each.mean(0) - exact).abs() < 4 * error + 1e-12).all()


def test_a_student_that_equals_its_teacher_gets_no_gradient_on_any_part_of_the_spans():
    toy = Toy()
    toy.teacher = toy.logprobs(ALL).student_S.detach()
    for part in (ALL, ALL[:5]):
        assert toy.gradient(sampled_reverse_kl(toy.logprobs(part)).sum()).abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_two_outcomes_by_hand(kind):
    p, q = 0.3, 0.6
    spans = SpanLogprobs(torch.tensor([math.log(p)]), torch.tensor([math.log(q)]))
    plain = torch.tensor([[p, 1 - p]]).log(), torch.tensor([[q, 1 - q]]).log()
    torch.testing.assert_close(two_outcomes(KINDS[kind], spans), KINDS[kind](*plain))


@pytest.mark.parametrize("kind", KINDS)
def test_two_outcomes_have_the_gradient_of_finite_differences(kind):
    student = torch.tensor([-3.0, -0.9, -0.5, -0.01, -30.0], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([-0.2, -2.0, -0.6, -5.0, -0.3], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: two_outcomes(KINDS[kind], SpanLogprobs(s, teacher)), student)


@pytest.mark.parametrize("kind", KINDS)
def test_two_outcomes_stay_finite_at_certainty_and_at_nothing(kind):
    student = torch.tensor([0.0, -1e-9, -200.0], requires_grad=True)
    value = two_outcomes(KINDS[kind], SpanLogprobs(student, torch.tensor([-200.0, 0.0, 0.0])))
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_two_outcomes_never_exceed_the_divergence_over_all_spans(kind):
    toy = Toy()
    spans = toy.logprobs(ALL)
    whole = KINDS[kind](spans.student_S[None], spans.teacher_S[None])
    assert (two_outcomes(KINDS[kind], spans) <= whole + 1e-12).all()


def test_tokens_of_a_span_are_added_up_and_those_outside_are_not():
    logprob = torch.tensor([[-1.0, -2.0, -4.0], [-8.0, -16.0, -32.0]])
    span = torch.tensor([[0, 0, -1], [-1, 1, 2]])
    assert sum_spans(logprob, span, 3).tolist() == [-3.0, -16.0, -32.0]
    assert sum_spans(logprob, torch.full_like(span, -1), 0).tolist() == []


# Buckets


def test_mass_of_buckets_by_hand():
    mass = torch.tensor([[0.1, 0.2, 0.3, 0.25, 0.15]])
    side = buckets([2, 0], more=[3], of=[1], rest=[1, 4])
    torch.testing.assert_close(bucket_logits(mass.log(), side).softmax(-1), torch.tensor([[0.3, 0.35, 0.35]]))


def test_rows_that_are_cut_have_no_mass():
    mass = torch.tensor([[0.1, 0.2, 0.7]])
    torch.testing.assert_close(bucket_logits(mass.log(), buckets([0, 1])).softmax(-1), torch.tensor([[1 / 3, 2 / 3]]))


def test_the_mass_of_a_tiny_rest_is_exact_where_one_minus_the_others_is_lost():
    side = buckets([0], rest=[1, 2])
    found = bucket_logits(torch.tensor([[0.0, -40.0, -41.0]]), side).log_softmax(-1)
    assert float(found[0, 1]) == pytest.approx(math.log(math.exp(-40) + math.exp(-41)), rel=1e-6)
    assert 1 - float(found[0, 0].exp()) == 0


STUDENT, TEACHER = buckets([1, 4, 0], [2, 6], [0, 2], [3, 7]), buckets([0, 1, 5], [2], [1], [3, 4])
"""A student of 9 rows, two of them cut, and a teacher of 7, one of them cut."""


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("kind", KINDS)
def test_divergences_over_buckets_have_the_gradient_of_finite_differences(kind, temperature):
    compare, teacher = OverBuckets(KINDS[kind], meeting_of(STUDENT, TEACHER), temperature), logits(3, 7, seed=8)
    student, step = logits(3, 9, seed=7), 1e-6
    found = compare(student, teacher)
    for piece in range(9):
        moved = torch.zeros(9, dtype=torch.float64)
        moved[piece] = step
        slope_n = (compare(student + moved, teacher).value_n - compare(student - moved, teacher).value_n) / (2 * step)
        torch.testing.assert_close(found.grad_nV[:, piece], slope_n, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_temperature_is_applied_before_pieces_are_put_together(kind):
    meet, student, teacher = meeting_of(STUDENT, TEACHER), logits(1, 9, seed=7), logits(1, 7, seed=8)
    found = OverBuckets(KINDS[kind], meet, 1.7)(student, teacher)
    plain = KINDS[kind](meet.student(student / 1.7), meet.teacher(teacher / 1.7))
    torch.testing.assert_close(found.value_n, plain)
    at_1 = OverBuckets(KINDS[kind], meet)(student, teacher)
    assert abs(at_1.value_n - found.value_n) > 1e-3
    torch.testing.assert_close(at_1.observed_n4, found.observed_n4)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 5), scale=st.floats(0.1, 8))
def test_a_divergence_over_buckets_never_exceeds_the_one_over_pieces(kind, seed, cut, scale):
    """The teacher's pieces are the student's under other ids; some of them are not known to be."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    student, teacher = logits(2, 8, seed=seed) * scale, logits(2, 8, seed=seed + 1) * scale
    true = KINDS[kind](student, teacher[:, order])
    known = list(range(8 - cut))
    left = list(range(8 - cut, 8))
    meet = meeting_of(buckets(known, rest=left), buckets(order[known].tolist(), rest=order[left].tolist()))
    coarse = KINDS[kind](meet.student(student), meet.teacher(teacher))
    assert (coarse <= true + 1e-9).all()


def test_infinite_logits_have_no_mass_in_a_bucket_either():
    side = buckets([0, 1], more=[2, 3], of=[0, 1])
    student = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0]], requires_grad=True)
    found = bucket_logits(student, side)
    found.log_softmax(-1)[0, 1].backward()
    assert found[0, 0] == -math.inf
    assert student.grad is not None
    assert student.grad.isfinite().all()
