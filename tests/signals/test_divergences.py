"""Every divergence against numbers by hand, TRL, Liger, its own definition, and its edges."""

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dudi_kit.signals.divergences import (
    Divergence,
    both,
    entropy_,
    forward_kl,
    jsd,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
)
from tests.signals.tempered import with_temperature

INF = float("inf")
ALL: dict[str, Divergence] = {
    "reverse_kl": reverse_kl,
    "forward_kl": forward_kl,
    "jsd_0.1": jsd(0.1),
    "jsd_0.5": jsd(0.5),
    "jsd_0.9": jsd(0.9),
    "skew_forward_kl_0.1": skew_forward_kl(0.1),
    "skew_reverse_kl_0.1": skew_reverse_kl(0.1),
    "skew_forward_kl_0.7": skew_forward_kl(0.7),
    "skew_reverse_kl_0.7": skew_reverse_kl(0.7),
    "jsd_0.5_temperature_1.7": with_temperature(jsd(0.5), 1.7),
}
EACH = pytest.mark.parametrize("divergence", ALL.values(), ids=ALL.keys())


def random_logits(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64, scale: float = 2.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(scale).to(dtype)


def gradient(divergence: Divergence, student: Tensor, teacher: Tensor) -> Tensor:
    student = student.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(divergence(student, teacher).sum(), student)
    return grad


# Two tokens, three pieces. Logits are logarithms of unnormalised masses, so that softmax is tested too.
#   token 1: π = (1/2, 1/4, 1/4)   T = (1/4, 1/4, 1/2)
#   token 2: π = (1/2, 1/3, 1/6)   T = (1/3, 1/3, 1/3)
STUDENT = torch.tensor([[2.0, 1.0, 1.0], [3.0, 2.0, 1.0]], dtype=torch.float64).log()
TEACHER = torch.tensor([[1.0, 1.0, 2.0], [5.0, 5.0, 5.0]], dtype=torch.float64).log()
BY_HAND = {
    # KL(π‖T): ½·log 2 + ¼·log 1 + ¼·log ½ = ¼·log 2;  ½·log(3/2) + ⅓·log 1 + ⅙·log ½ = ½·log 3 − ⅔·log 2
    "reverse_kl": (reverse_kl, [0.17328680, 0.08720802]),
    # KL(T‖π): ¼·log ½ + 0 + ½·log 2 = ¼·log 2;  ⅓·log(2/3) + 0 + ⅓·log 2 = ⅓·(2·log 2 − log 3)
    "forward_kl": (forward_kl, [0.17328680, 0.09589402]),
    # M = ½T + ½π = (3/8, 1/4, 3/8), (5/12, 1/3, 1/4)
    #   KL(T‖M): ¼·log(2/3) + ½·log(4/3) = 0.04247476;  ⅓·log(4/5) + ⅓·log(4/3) = ⅓·log(16/15) = 0.02151284
    #   KL(π‖M): ½·log(4/3) + ¼·log(2/3) = 0.04247476;  ½·log(6/5) + ⅙·log(2/3) = 0.02358326
    "jsd(½)": (jsd(0.5), [0.04247476, (0.02151284 + 0.02358326) / 2]),
    "skew_forward_kl(½)": (skew_forward_kl(0.5), [0.04247476, 0.02151284]),
    "skew_reverse_kl(½)": (skew_reverse_kl(0.5), [0.04247476, 0.02358326]),
    # M = ¼T + ¾π = (7/16, 1/4, 5/16), (11/24, 1/3, 5/24): unequal shares, which a swap would change
    #   KL(T‖M): ¼·log(4/7) + ½·log(8/5) = 0.09509787;  ⅓·log(8/11) + ⅓·log(8/5) = ⅓·log(64/55) = 0.05051663
    #   KL(π‖M): ½·log(8/7) + ¼·log(4/5) = 0.01097981;  ½·log(12/11) + ⅙·log(4/5) = 0.00631510
    "jsd(¼)": (jsd(0.25), [0.25 * 0.09509787 + 0.75 * 0.01097981, 0.25 * 0.05051663 + 0.75 * 0.00631510]),
    "skew_forward_kl(¼)": (skew_forward_kl(0.25), [0.09509787, 0.05051663]),
    "skew_reverse_kl(¾)": (skew_reverse_kl(0.75), [0.01097981, 0.00631510]),
}


@pytest.mark.parametrize(("divergence", "expected"), BY_HAND.values(), ids=BY_HAND.keys())
def test_two_tokens_and_three_pieces_by_hand(divergence: Divergence, expected: list[float]):
    torch.testing.assert_close(divergence(STUDENT, TEACHER).tolist(), expected, atol=2e-8, rtol=0)


def test_gradients_of_the_plain_kls_by_hand():
    # token 1 of above. KL(π‖T): π·(log π/T − D) = (½·¾, −¼·¼, −¼·5/4)·log 2;  KL(T‖π): π − T
    reverse = [3 / 8 * math.log(2), -1 / 16 * math.log(2), -5 / 16 * math.log(2)]
    torch.testing.assert_close(gradient(reverse_kl, STUDENT[0], TEACHER[0]).tolist(), reverse)
    torch.testing.assert_close(gradient(forward_kl, STUDENT[0], TEACHER[0]).tolist(), [1 / 4, 0.0, -1 / 4])


def test_entropy_by_hand():
    # (1/2, 1/4, 1/4): ½·log 2 + ¼·log 4 + ¼·log 4 = 1½·log 2; a piece without mass adds nothing
    student = both(torch.tensor([2.0, 1.0, 1.0, 0.0]).log(), torch.zeros(4))
    assert entropy_(student.log_student, student.student).item() == pytest.approx(1.5 * math.log(2))


@EACH
def test_gradients_agree_with_finite_differences(divergence: Divergence):
    teacher = random_logits(4, 6, seed=1)
    assert torch.autograd.gradcheck(lambda student: divergence(student, teacher), random_logits(4, 6).requires_grad_())


# --- oracles


@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_jsd_and_its_ends_agree_with_trl(beta: float, temperature: float, dtype: torch.dtype, tolerance: float):
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    trl = pytest.importorskip("trl.experimental.gkd")
    student, teacher = random_logits(3, 7, 50, dtype=dtype), random_logits(3, 7, 50, seed=1, dtype=dtype)
    labels = torch.randint(50, (3, 7), generator=torch.Generator().manual_seed(2))
    labels[0, 4:], labels[1, :2], labels[2] = -100, -100, -100
    mask = labels != -100

    def theirs(student: Tensor, teacher: Tensor) -> Tensor:
        return trl.GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta=beta, temperature=temperature)

    def ours(student: Tensor, teacher: Tensor) -> Tensor:
        return with_temperature(jsd(beta), temperature)(student[mask], teacher[mask]).sum() / mask.sum()

    torch.testing.assert_close(ours(student, teacher), theirs(student, teacher), atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        gradient(ours, student, teacher), gradient(theirs, student, teacher), atol=tolerance, rtol=0
    )


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 1.0])
def test_jsd_and_its_ends_agree_with_liger(beta: float, temperature: float):
    # Liger 0.8: the same β and mixture as TRL, no T², divided by the valid tokens; it starts from hidden states.
    liger = pytest.importorskip("liger_kernel.chunked_loss")
    loss = liger.LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=beta, temperature=temperature, compiled=False, chunk_size=4
    )
    hidden, teacher_hidden = random_logits(12, 8, dtype=torch.float32), random_logits(12, 16, dtype=torch.float32)
    head = random_logits(50, 8, seed=1, dtype=torch.float32, scale=0.3).requires_grad_()
    teacher_head = random_logits(50, 16, seed=2, dtype=torch.float32, scale=0.3)
    labels = torch.arange(12)
    labels[9:] = -100
    mask = labels != -100

    theirs = loss(hidden.clone(), head, teacher_hidden.clone(), teacher_head, labels)
    student, teacher = hidden @ head.T, teacher_hidden @ teacher_head.T
    ours = with_temperature(jsd(beta), temperature)(student[mask], teacher[mask]).sum() / mask.sum()

    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(ours, head)[0], torch.autograd.grad(theirs, head)[0], atol=1e-6, rtol=1e-5
    )


def test_skew_kls_agree_with_their_definition_in_probabilities():
    student, teacher = random_logits(5, 9), random_logits(5, 9, seed=1)

    def kl(p: Tensor, q: Tensor) -> Tensor:
        return (p * (p / q).log()).sum(-1)

    for alpha in (0.1, 0.4, 0.9):

        def forward(student: Tensor, teacher: Tensor, alpha: float = alpha) -> Tensor:
            p, q = student.softmax(-1), teacher.softmax(-1)
            return kl(q, alpha * q + (1 - alpha) * p)

        def reverse(student: Tensor, teacher: Tensor, alpha: float = alpha) -> Tensor:
            p, q = student.softmax(-1), teacher.softmax(-1)
            return kl(p, (1 - alpha) * q + alpha * p)

        for ours, definition in ((skew_forward_kl(alpha), forward), (skew_reverse_kl(alpha), reverse)):
            torch.testing.assert_close(ours(student, teacher), definition(student, teacher))
            torch.testing.assert_close(gradient(ours, student, teacher), gradient(definition, student, teacher))


# --- properties


@EACH
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.0, 30.0), vocabulary=st.integers(1, 40))
def test_divergence_is_never_negative_and_zero_between_equals(
    divergence: Divergence, seed: int, scale: float, vocabulary: int
):
    student = random_logits(3, vocabulary, seed=seed, scale=scale)
    teacher = random_logits(3, vocabulary, seed=seed + 1, scale=scale)
    assert (divergence(student, teacher) >= -1e-13).all()
    torch.testing.assert_close(divergence(student, student), torch.zeros(3, dtype=torch.float64), atol=1e-13, rtol=0)
    assert gradient(divergence, student, student).abs().max() < 1e-13


@EACH
def test_a_constant_added_to_logits_changes_nothing(divergence: Divergence):
    student, teacher = random_logits(4, 6), random_logits(4, 6, seed=1)
    torch.testing.assert_close(divergence(student + 1000, teacher - 500), divergence(student, teacher))


def test_ends_of_the_families_are_the_plain_kls():
    assert jsd(0) is forward_kl
    assert jsd(1) is reverse_kl
    assert skew_forward_kl(0) is forward_kl
    assert skew_reverse_kl(0) is reverse_kl


def test_skew_kls_tend_to_the_plain_kls_and_jsd_to_their_multiples():
    student, teacher, small = random_logits(4, 6), random_logits(4, 6, seed=1), 1e-7
    for family, plain in (
        (skew_forward_kl(small), forward_kl),
        (skew_reverse_kl(small), reverse_kl),
        (lambda s, t: jsd(small)(s, t) / small, forward_kl),
        (lambda s, t: jsd(1 - small)(s, t) / small, reverse_kl),
    ):
        torch.testing.assert_close(family(student, teacher), plain(student, teacher), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_outside_0_and_1_are_refused(share: float):
    for family in (jsd, skew_forward_kl, skew_reverse_kl):
        with pytest.raises(ValueError, match="lies between 0 and 1"):
            family(share)


# --- edges


@EACH
def test_teacher_gets_no_gradient(divergence: Divergence):
    student, teacher = random_logits(4, 6).requires_grad_(), random_logits(4, 6, seed=1).requires_grad_()
    divergence(student, teacher).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


@EACH
def test_half_precision_logits_are_computed_in_fp32(divergence: Divergence):
    for dtype in (torch.bfloat16, torch.float16):
        student, teacher = random_logits(4, 500, dtype=dtype), random_logits(4, 500, seed=1, dtype=dtype)
        value = divergence(student, teacher)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, divergence(student.float(), teacher.float()), rtol=0, atol=0)
        grad = gradient(divergence, student, teacher)
        assert grad.dtype == dtype
        torch.testing.assert_close(grad, gradient(divergence, student.float(), teacher.float()).to(dtype))


@EACH
def test_pieces_masked_on_both_sides_change_nothing(divergence: Divergence):
    student, teacher = random_logits(4, 6), random_logits(4, 6, seed=1)
    nothing = torch.full((4, 2), -INF, dtype=torch.float64)
    student_more, teacher_more = torch.cat([student, nothing], -1), torch.cat([teacher, nothing], -1)
    torch.testing.assert_close(divergence(student_more, teacher_more), divergence(student, teacher))
    grad = gradient(divergence, student_more, teacher_more)
    torch.testing.assert_close(grad[:, :6], gradient(divergence, student, teacher))
    assert (grad[:, 6:] == 0).all()


@pytest.mark.parametrize("divergence", [reverse_kl, jsd(0.5), skew_forward_kl(0.1), skew_reverse_kl(0.1)])
def test_a_piece_without_student_mass_is_finite_in_value_and_gradient(divergence: Divergence):
    student, teacher = random_logits(4, 6), random_logits(4, 6, seed=1)
    student[:, 2] = -INF
    assert divergence(student, teacher).isfinite().all()
    grad = gradient(divergence, student, teacher)
    assert grad.isfinite().all()
    assert (grad[:, 2] == 0).all()


@pytest.mark.parametrize("divergence", [forward_kl, jsd(0.5), skew_forward_kl(0.1), skew_reverse_kl(0.1)])
def test_a_piece_without_teacher_mass_is_finite_in_value_and_gradient(divergence: Divergence):
    student, teacher = random_logits(4, 6), random_logits(4, 6, seed=1)
    teacher[:, 2] = -INF
    assert divergence(student, teacher).isfinite().all()
    grad = gradient(divergence, student, teacher)
    assert grad.isfinite().all()
    assert (grad[:, 2] > 0).all()  # descending takes mass from the piece


def test_mass_that_the_other_side_rules_out_is_infinitely_far_in_a_plain_kl():
    whole, ruled_out = torch.zeros(3), torch.tensor([0.0, 0.0, -INF])
    assert reverse_kl(whole, ruled_out) == INF
    assert forward_kl(ruled_out, whole) == INF


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_very_peaked_distributions_stay_finite(divergence: Divergence, dtype: torch.dtype):
    student = torch.tensor([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4], [0.0, 1.0, 2.0]], dtype=dtype)
    teacher = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4], [-1e4, 0.0, 1e4]], dtype=dtype)
    value = divergence(student, teacher)
    assert value.isfinite().all()
    assert value[0].abs() <= torch.finfo(dtype).eps
    assert gradient(divergence, student, teacher).isfinite().all()


def test_disjoint_distributions_are_a_logarithm_of_the_share_apart_in_mixtures():
    # π and T share no piece: log π/M = −log(share of π), log T/M = −log(share of T)
    student, teacher = torch.tensor([0.0, -INF]), torch.tensor([-INF, 0.0])
    assert jsd(0.5)(student, teacher).item() == pytest.approx(math.log(2))
    assert skew_forward_kl(0.1)(student, teacher).item() == pytest.approx(-math.log(0.1))
    assert skew_reverse_kl(0.1)(student, teacher).item() == pytest.approx(-math.log(0.1))


@EACH
def test_nan_logits_are_not_hidden(divergence: Divergence):
    student, teacher = random_logits(2, 6), random_logits(2, 6, seed=1)
    student[0, 3] = float("nan")
    assert divergence(student, teacher).isnan().tolist() == [True, False]
