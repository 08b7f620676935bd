"""The signals and the objective: sums and counts for each row, by hand, against Liger, and with nothing valid."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dudi_kit.signals.divergences import (
    Divergence,
    forward_kl,
    jsd,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
)
from dudi_kit.signals.likelihood import dft_signal, sft_signal
from dudi_kit.signals.objective import combine
from dudi_kit.signals.result import SignalResult
from dudi_kit.signals.sequence import PairLogprobs, sequence_signal
from dudi_kit.signals.token import OBSERVED, Compared, OverPieces, _likeliest
from tests.signals.tempered import with_temperature


def logits_pair(*shape: int) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).mul(3).unbind()
    return student.clone().requires_grad_(), teacher.clone()


# --- token


def compare(student: Tensor, teacher: Tensor, divergence: Divergence, **settings: Any) -> Compared:
    return OverPieces(divergence, **settings)(student.detach(), teacher)


def observed(compared: Compared) -> dict[str, list[float]]:
    return dict(zip(OBSERVED, compared.observed_n4.T.tolist(), strict=True))


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("pieces", [None, 7])
@pytest.mark.parametrize("divergence", [reverse_kl, forward_kl, jsd(0.3), skew_forward_kl(0.2), skew_reverse_kl(0.2)])
def test_value_and_gradient_are_those_of_the_divergence(divergence: Divergence, pieces: int | None, temperature: float):
    student, teacher = logits_pair(5, 9)
    expected = with_temperature(divergence, temperature)(student[:, :pieces], teacher[:, :pieces])
    compared = compare(student, teacher, divergence, temperature=temperature, pieces=pieces)
    torch.testing.assert_close(compared.value_n, expected)
    torch.testing.assert_close(compared.grad_nV, torch.autograd.grad(expected.sum(), student)[0])
    if compared.student_nV is not None:
        torch.testing.assert_close(compared.student_nV, student.softmax(-1))
    assert (compared.student_nV is None) == (pieces is not None)


def test_token_metrics_by_hand():
    student = torch.tensor([[2.0, 1.0, 1.0], [1.0, 3.0, 1.0]]).log()
    teacher = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]).log()  # both of entropy 1½·log 2
    found = observed(compare(student, teacher, forward_kl))
    assert found["top1_agreement"] == [1.0, 0.0]
    assert found["teacher_entropy"] == pytest.approx([1.5 * math.log(2)] * 2)


def test_overlap_of_the_ten_likeliest_pieces_by_hand():
    student = torch.arange(24.0)[None]  # its ten: 14 … 23
    teacher = torch.zeros(1, 24)
    teacher[..., [0, 1, 2, 13, 14, 15, 16, 17, 18, 23]] = 1.0  # six of them are among the student's
    assert observed(compare(student, teacher, reverse_kl))["top10_overlap"] == pytest.approx([0.6])


def test_a_piece_as_likely_as_the_students_tenth_is_among_its_ten():
    teacher = torch.cat([torch.zeros(10), torch.ones(10)])[None]
    assert observed(compare(torch.zeros(1, 20), teacher, reverse_kl))["top10_overlap"] == [1.0]


@pytest.mark.parametrize("pieces", [10, 63, 64, 640, 704, 777, 2000])
def test_the_likeliest_pieces_are_found_wherever_they_lie(pieces: int):
    logits = logits_pair(40, pieces)[0].detach()
    logits[0] = torch.arange(pieces)  # all of them in one block, and beyond the last whole one
    torch.testing.assert_close(_likeliest(logits, 10), logits.topk(10).indices)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pieces", [3, 10, 301, 1000])
def test_identical_models_overlap_wholly_and_have_no_kl(pieces: int, dtype: torch.dtype):
    student = logits_pair(3, pieces)[0].to(dtype).float()
    found = observed(compare(student, student.detach(), jsd(0.5)))
    assert found["top10_overlap"] == found["top1_agreement"] == [1.0] * 3
    assert found["reverse_kl"] == pytest.approx([0.0] * 3, abs=1e-5)


@pytest.mark.parametrize(("divergence", "temperature"), [(reverse_kl, 1.0), (jsd(0.5), 1.0), (reverse_kl, 2.0)])
def test_the_kl_that_is_logged_is_the_plain_one_whatever_is_learned(divergence: Divergence, temperature: float):
    student, teacher = logits_pair(3, 7)
    found = observed(compare(student, teacher, divergence, temperature=temperature))
    assert found["reverse_kl"] == pytest.approx(reverse_kl(student, teacher).tolist())


# --- sequence


def pairs() -> tuple[PairLogprobs, PairLogprobs]:
    policy = PairLogprobs(torch.tensor([-10.0, -20.0]).requires_grad_(), torch.tensor([-12.0, -8.0]).requires_grad_())
    reference = PairLogprobs(torch.tensor([-13.0, -19.0]), torch.tensor([-11.0, -10.0]))
    return policy, reference


def test_sequence_signal_and_its_gradient_by_hand():
    # margins: (−10 + 13) − (−12 + 11) = 4;  (−20 + 19) − (−8 + 10) = −3.  β = ½
    # loss: log(1 + e^{−2}) = 0.12692801;  log(1 + e^{1½}) = 1.70141328
    # ∂loss/∂log π(y|x) = −β·σ(−β·margin): −½/(1 + e²) = −0.05960146;  −½/(1 + e^{−1½}) = −0.40878724; opposite for ỹ
    policy, reference = pairs()
    result = sequence_signal(policy, reference, beta=0.5)
    torch.testing.assert_close(result.total_B.tolist(), [0.12692801, 1.70141328], atol=1e-6, rtol=0)
    assert result.count_B.tolist() == [1, 1]
    assert result.metrics["margin"].total_B.tolist() == [4.0, -3.0]
    assert result.metrics["accuracy"].total_B.tolist() == [1.0, 0.0]
    result.total_B.sum().backward()
    expected = torch.tensor([-0.05960146, -0.40878724])
    torch.testing.assert_close(policy.corpus_B.grad, expected)
    torch.testing.assert_close(policy.rollout_B.grad, -expected)


def test_sequence_signal_agrees_with_ligers_dpo():
    dpo = pytest.importorskip("liger_kernel.chunked_loss.dpo_loss")
    corpus, rollout, ref_corpus, ref_rollout = (
        torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).mul(20).requires_grad_().unbind()
    )
    theirs, *_ = dpo.LigerFusedLinearDPOFunction.preference_loss_fn(
        corpus, rollout, torch.zeros(12, 1), ref_corpus.detach(), ref_rollout.detach(), beta=0.1
    )
    result = sequence_signal(PairLogprobs(corpus, rollout), PairLogprobs(ref_corpus, ref_rollout), beta=0.1)
    ours = result.total_B.sum() / result.count_B.sum()
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(
        torch.autograd.grad(ours, (corpus, rollout)), torch.autograd.grad(theirs, (corpus, rollout)), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_rows_without_a_pair_count_nothing_whatever_they_hold():
    policy, reference = pairs()
    with torch.no_grad():
        policy.corpus_B[1] = float("nan")
        reference.rollout_B[1] = float("-inf")
    result = sequence_signal(policy, reference, beta=0.5, valid_B=torch.tensor([True, False]))
    assert result.count_B.tolist() == [1, 0]
    torch.testing.assert_close(result.total_B.tolist(), [0.12692801, 0.0], atol=1e-6, rtol=0)
    assert result.metrics["margin"].total_B.tolist() == [4.0, 0.0]
    result.total_B.sum().backward()
    assert policy.corpus_B.grad[1] == 0
    assert policy.rollout_B.grad[1] == 0


def test_sequence_signal_is_finite_for_huge_margins_and_the_reference_gets_no_gradient():
    policy = PairLogprobs(torch.tensor([-1e5, 0.0]).requires_grad_(), torch.tensor([0.0, -1e5]).requires_grad_())
    reference = PairLogprobs(torch.zeros(2).requires_grad_(), torch.zeros(2).requires_grad_())
    result = sequence_signal(policy, reference, beta=0.1)
    assert result.total_B.tolist() == [1e4, 0.0]
    result.total_B.sum().backward()
    assert policy.corpus_B.grad.isfinite().all()
    assert reference.corpus_B.grad is None
    assert reference.rollout_B.grad is None


# --- likelihood


def test_sft_signal_by_hand():
    logprob = torch.tensor([[0.5, 0.25], [0.125, 1.0]]).log()
    result = sft_signal(logprob, torch.tensor([[True, True], [True, False]]))
    torch.testing.assert_close(result.total_B.tolist(), [3 * math.log(2), 3 * math.log(2)])
    assert result.count_B.tolist() == [2, 1]


def test_dft_gradient_is_the_probability_times_the_sft_gradient():
    logprob = torch.tensor([[0.5, 0.25, 0.125]]).log().requires_grad_()
    mask = torch.tensor([[True, True, False]])
    result = dft_signal(logprob, mask)
    torch.testing.assert_close(result.total_B.item(), (0.5 * 1 + 0.25 * 2) * math.log(2))
    (dft,) = torch.autograd.grad(result.total_B.sum(), logprob)
    (sft,) = torch.autograd.grad(sft_signal(logprob, mask).total_B.sum(), logprob)
    assert sft.tolist() == [[-1.0, -1.0, 0.0]]
    torch.testing.assert_close(dft, logprob.detach().exp() * sft)


@pytest.mark.parametrize("signal", [sft_signal, dft_signal])
def test_likelihood_signals_ignore_what_stands_under_the_mask(signal):
    logprob = torch.tensor([[-1.0, float("nan"), float("-inf")]]).requires_grad_()
    result = signal(logprob, torch.tensor([[1, 0, 0]]))
    assert result.total_B.isfinite().all()
    result.total_B.sum().backward()
    assert logprob.grad[0, 0].isfinite()


# --- objective


def test_objective_by_hand():
    results = {
        "sequence": SignalResult(torch.tensor([1.0, 3.0]), torch.tensor([1, 1])),
        "on_policy": SignalResult(torch.tensor([6.0, 0.0]), torch.tensor([3, 0])),
    }
    # 2·(1 + 3)/4 + ½·6/12 = 2¼: the counts are the global batch's
    loss = combine(results, {"sequence": 2.0, "on_policy": 0.5}, {"sequence": torch.tensor(4), "on_policy": 12.0})
    assert loss.item() == pytest.approx(2.25)


def test_a_weight_or_a_count_that_is_missing_is_an_error():
    results = {"sft": SignalResult(torch.tensor([1.0]), torch.tensor([1]))}
    with pytest.raises(KeyError):
        combine(results, {}, {"sft": 1.0})
    with pytest.raises(KeyError):
        combine(results, {"sft": 1.0}, {})
