"""The signals and the objective: sums and counts for each row, by hand, against Liger, and with nothing valid."""

import math

import pytest
import torch
from torch import Tensor

from dudi_kit.signals.chunks import chunked
from dudi_kit.signals.divergences import Divergence, forward_kl, jsd, reverse_kl, with_temperature
from dudi_kit.signals.likelihood import dft_signal, sft_signal
from dudi_kit.signals.objective import combine
from dudi_kit.signals.result import SignalResult
from dudi_kit.signals.sequence import PairLogprobs, sequence_signal
from dudi_kit.signals.token import token_signal

MASK = torch.tensor([[True, True, False], [False, False, False], [True, False, True]])


def logits_pair(*shape: int) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).mul(3).unbind()
    return student.clone().requires_grad_(), teacher.clone()


# --- token


def test_token_signal_sums_each_row_over_its_valid_tokens():
    student, teacher = logits_pair(3, 3, 7)
    result = token_signal(student, teacher, MASK, reverse_kl)
    each = reverse_kl(student, teacher)
    torch.testing.assert_close(
        result.total_B, torch.stack([each[0, 0] + each[0, 1], 0 * each[0, 0], each[2, ::2].sum()])
    )
    assert result.count_B.tolist() == [2, 0, 2]


def test_padding_changes_neither_loss_nor_gradient():
    student, teacher = logits_pair(3, 3, 7)
    clean = token_signal(student, teacher, MASK, jsd(0.5))
    clean.total_B.sum().backward()
    for garbage in (float("nan"), float("inf"), float("-inf")):
        padding = torch.full((3, 2, 7), garbage)
        padded = torch.cat([student.detach().masked_fill(~MASK.unsqueeze(-1), garbage), padding], 1).requires_grad_()
        longer_teacher = torch.cat([teacher.masked_fill(~MASK.unsqueeze(-1), garbage), padding], 1)
        longer_mask = torch.cat([MASK, torch.zeros(3, 2, dtype=torch.bool)], 1)
        result = token_signal(padded, longer_teacher, longer_mask, jsd(0.5))
        torch.testing.assert_close(result.total_B, clean.total_B)
        for name, metric in clean.metrics.items():
            torch.testing.assert_close(result.metrics[name].total_B, metric.total_B)
        result.total_B.sum().backward()
        torch.testing.assert_close(padded.grad[:, :3], student.grad)
        assert (padded.grad[:, 3:] == 0).all()


def test_token_metrics_by_hand():
    student = torch.tensor([[[2.0, 1.0, 1.0], [1.0, 3.0, 1.0]]]).log()
    teacher = torch.tensor([[[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]]).log()  # both of entropy 1½·log 2
    metrics = token_signal(student, teacher, torch.tensor([[True, True]]), forward_kl).metrics
    assert metrics["top1_agreement"].total_B.tolist() == [1.0]
    assert metrics["top1_agreement"].count_B.tolist() == [2]
    assert metrics["teacher_entropy"].total_B.item() == pytest.approx(3 * math.log(2))
    assert not any(metric.total_B.requires_grad for metric in metrics.values())


def test_overlap_of_the_ten_likeliest_pieces_by_hand():
    student = torch.arange(24.0).reshape(1, 1, 24)  # its ten: 14 … 23
    teacher = torch.zeros(1, 1, 24)
    teacher[..., [0, 1, 2, 13, 14, 15, 16, 17, 18, 23]] = 1.0  # six of them are among the student's
    metric = token_signal(student, teacher, torch.tensor([[True]]), reverse_kl).metrics["top10_overlap"]
    assert metric.total_B.item() == pytest.approx(0.6)
    assert metric.count_B.tolist() == [1]


def test_a_piece_as_likely_as_the_students_tenth_is_among_its_ten():
    teacher = torch.cat([torch.zeros(10), torch.ones(10)]).reshape(1, 1, 20)
    metrics = token_signal(torch.zeros(1, 1, 20), teacher, torch.tensor([[True]]), reverse_kl).metrics
    assert metrics["top10_overlap"].total_B.item() == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pieces", [3, 10, 301])
def test_identical_models_overlap_wholly_and_have_no_kl(pieces: int, dtype: torch.dtype):
    student = logits_pair(3, 3, pieces)[0].to(dtype)
    metrics = token_signal(student, student.detach(), MASK, jsd(0.5)).metrics
    assert metrics["top10_overlap"].total_B.tolist() == [2.0, 0.0, 2.0]
    assert metrics["top1_agreement"].total_B.tolist() == [2.0, 0.0, 2.0]
    assert metrics["reverse_kl"].total_B.tolist() == pytest.approx([0.0] * 3, abs=1e-5)


@pytest.mark.parametrize("divergence", [reverse_kl, jsd(0.5), with_temperature(reverse_kl, 2.0)])
def test_the_kl_that_is_logged_is_the_plain_one_whatever_is_learned(divergence: Divergence):
    student, teacher = logits_pair(3, 3, 7)
    logged = token_signal(student, teacher, MASK, divergence).metrics["reverse_kl"]
    torch.testing.assert_close(logged.total_B, token_signal(student, teacher, MASK, reverse_kl).total_B.detach())
    assert not logged.total_B.requires_grad


@pytest.mark.parametrize("divergence", [reverse_kl, jsd(0.5)])
def test_what_is_measured_changes_no_bit_of_loss_or_gradient(divergence: Divergence):
    student, teacher = logits_pair(3, 3, 301)
    bare = chunked(divergence, student, teacher, mask=MASK)
    measured = token_signal(student, teacher, MASK, divergence)
    row = MASK.nonzero(as_tuple=True)[0]
    expected_B = bare.new_zeros(3).index_add(0, row, bare)
    assert torch.equal(measured.total_B, expected_B)
    assert torch.equal(
        torch.autograd.grad(measured.total_B.sum(), student)[0], torch.autograd.grad(expected_B.sum(), student)[0]
    )


def test_token_signal_with_integer_mask_and_any_chunk_is_the_same():
    student, teacher = logits_pair(3, 3, 7)
    expected = token_signal(student, teacher, MASK, reverse_kl).total_B
    for chunk in (1, 2, 100):
        torch.testing.assert_close(
            token_signal(student, teacher, MASK.long(), reverse_kl, chunk=chunk).total_B, expected
        )


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


def test_any_split_of_the_batch_has_the_loss_and_gradient_of_the_whole():
    student, teacher = logits_pair(3, 3, 7)
    weights, counts = {"on_policy": 0.5, "sft": 1.0}, {"on_policy": MASK.sum(), "sft": MASK.sum()}

    def loss(rows: slice) -> Tensor:
        token = token_signal(student[rows], teacher[rows], MASK[rows], reverse_kl)
        sft = sft_signal(student[rows].log_softmax(-1)[..., 0], MASK[rows])
        return combine({"on_policy": token, "sft": sft}, weights, counts)

    whole, parts = loss(slice(0, 3)), [loss(slice(0, 1)), loss(slice(1, 2)), loss(slice(2, 3))]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(torch.autograd.grad(sum(parts), student)[0], torch.autograd.grad(whole, student)[0])


def test_masked_out_everything_gives_zero_and_a_finite_gradient():
    student, teacher = logits_pair(3, 3, 7)
    nothing = torch.zeros_like(MASK)
    logprob = student.log_softmax(-1)[..., 0]
    policy = PairLogprobs(logprob.sum(-1), logprob.sum(-1))
    results = {
        "sequence": sequence_signal(policy, policy, beta=0.1, valid_B=nothing.any(-1)),
        "off_policy": token_signal(student, teacher, nothing, reverse_kl),
        "on_policy": token_signal(student, teacher, nothing, jsd(0.5)),
        "sft": sft_signal(logprob, nothing),
        "dft": dft_signal(logprob, nothing),
    }
    loss = combine(results, dict.fromkeys(results, 1.0), {name: r.count_B.sum() for name, r in results.items()})
    assert loss.item() == 0
    loss.backward()
    assert (student.grad == 0).all()


def test_a_weight_or_a_count_that_is_missing_is_an_error():
    results = {"sft": SignalResult(torch.tensor([1.0]), torch.tensor([1]))}
    with pytest.raises(KeyError):
        combine(results, {}, {"sft": 1.0})
    with pytest.raises(KeyError):
        combine(results, {"sft": 1.0}, {})
