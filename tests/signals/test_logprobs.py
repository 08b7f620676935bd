"""Token log-probabilities against log_softmax; what stands under the mask does not matter."""

import math

import pytest
import torch

from dudi_kit.signals.logprobs import token_logprobs


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits, ids = torch.randn(2, 4, 9, generator=generator), torch.randint(9, (2, 4), generator=generator)
    return logits, ids, torch.tensor([[True, True, True, False], [False, True, False, False]])


def test_logprobs_by_hand():
    # masses 2, 1, 1 → 1/2, 1/4, 1/4
    logits = torch.tensor([[[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]]).log()
    logprob = token_logprobs(logits, torch.tensor([[0, 2]]))
    torch.testing.assert_close(logprob, torch.tensor([[-math.log(2), -math.log(4)]]))


@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
def test_logprobs_are_the_gathered_log_softmax(chunk: int | None):
    logits, ids, _ = example()
    mine, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    logprob = token_logprobs(mine, ids, chunk=chunk)
    expected = plain.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(logprob, expected)
    logprob.pow(2).sum().backward()
    expected.pow(2).sum().backward()
    torch.testing.assert_close(mine.grad, plain.grad)


def test_gradient_agrees_with_finite_differences():
    logits, ids, mask = example()
    logits = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: token_logprobs(z, ids, mask, chunk=2), logits)


def test_masked_positions_are_zero_and_may_hold_anything():
    logits, ids, mask = example()
    clean = token_logprobs(logits, ids) * mask
    logits[~mask], ids[~mask] = float("nan"), -100
    logits.requires_grad_()
    logprob = token_logprobs(logits, ids, mask)
    torch.testing.assert_close(logprob, clean)
    logprob.sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[~mask] == 0).all()


def test_nothing_valid_gives_zeros_and_a_zero_gradient():
    logits, ids, mask = example()
    logits.requires_grad_()
    logprob = token_logprobs(logits, ids, torch.zeros_like(mask))
    assert (logprob == 0).all()
    logprob.sum().backward()
    assert (logits.grad == 0).all()


def test_half_precision_logits_are_computed_in_fp32():
    logits, ids, _ = example()
    half = logits.bfloat16()
    torch.testing.assert_close(token_logprobs(half, ids), token_logprobs(half.float(), ids), rtol=0, atol=0)
    assert token_logprobs(half, ids).dtype == torch.float32
