"""Chunked is full, to the last bit where the machine allows it; nothing outside the mask is read."""

import pytest
import torch
from torch import Tensor

from dudi_kit.signals.chunks import chunked
from dudi_kit.signals.divergences import Divergence, forward_kl, jsd, reverse_kl, skew_reverse_kl, with_temperature

DIVERGENCES = [reverse_kl, forward_kl, jsd(0.5), skew_reverse_kl(0.1), with_temperature(reverse_kl, 2.0)]


def pair(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, *shape, generator=generator).mul(3).to(dtype).unbind())


def value_and_gradient(function, student: Tensor) -> tuple[Tensor, Tensor]:
    student = student.detach().clone().requires_grad_()
    value = function(student)
    weights = torch.linspace(0.5, 2, value.numel()).reshape(value.shape)  # a gradient that differs from row to row
    (value * weights).sum().backward()
    assert student.grad is not None
    return value.detach(), student.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("chunk", [None, 1, 3, 16, 1000])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_chunked_is_full(divergence: Divergence, chunk: int | None, dtype: torch.dtype):
    student, teacher = pair(16, 301, dtype=dtype)
    full, full_grad = value_and_gradient(lambda s: divergence(s, teacher), student)
    value, grad = value_and_gradient(lambda s: chunked(divergence, s, teacher, chunk), student)
    last_bits = 2 * torch.finfo(full.dtype).eps
    torch.testing.assert_close(value, full, rtol=last_bits, atol=0)
    torch.testing.assert_close(grad, full_grad, rtol=0, atol=torch.finfo(dtype).eps * full_grad.abs().max().item())


def test_the_default_chunk_bounds_tokens_times_vocabulary(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dudi_kit.signals.chunks.CHUNK_ELEMENTS", 1000)
    seen: list[int] = []

    def spy(student: Tensor, teacher: Tensor) -> Tensor:
        seen.append(student.numel())
        return reverse_kl(student, teacher)

    student, teacher = pair(7, 301)
    value_and_gradient(lambda s: chunked(spy, s, teacher), student)
    assert student.numel() > 1000
    assert max(seen) <= 1000
    assert sum(seen) == 2 * student.numel()  # once forward, once backward


def test_only_valid_rows_are_read_and_get_a_gradient():
    student, teacher = pair(2, 5, 11)
    mask = torch.tensor([[True, True, False, False, True], [False, True, False, False, False]])
    clean, clean_grad = value_and_gradient(lambda s: reverse_kl(s[mask], teacher[mask]), student)
    for garbage in (float("nan"), float("inf"), float("-inf"), 1e30):
        dirty_student = student.masked_fill(~mask.unsqueeze(-1), garbage)
        dirty_teacher = teacher.masked_fill(~mask.unsqueeze(-1), garbage)
        function = lambda s, t=dirty_teacher: chunked(reverse_kl, s, t, 2, mask=mask)  # noqa: E731
        value, grad = value_and_gradient(function, dirty_student)
        torch.testing.assert_close(value, clean)
        torch.testing.assert_close(grad, clean_grad)
        assert (grad[~mask] == 0).all()


def test_strided_views_are_read_in_place():
    student, teacher = pair(2, 6, 11)
    full, full_grad = value_and_gradient(lambda s: reverse_kl(s[:, :-1], teacher[:, 1:]).flatten(), student)
    value, grad = value_and_gradient(lambda s: chunked(reverse_kl, s[:, :-1], teacher[:, 1:], 3), student)
    torch.testing.assert_close(value, full)
    torch.testing.assert_close(grad, full_grad)


def test_no_rows_give_no_values_and_a_zero_gradient():
    student, teacher = pair(3, 11)
    student.requires_grad_()
    value = chunked(reverse_kl, student, teacher, mask=torch.zeros(3, dtype=torch.bool))
    assert value.shape == (0,)
    value.sum().backward()
    assert (student.grad == 0).all()


def test_backward_twice_through_a_retained_graph_gives_the_same_gradient():
    student, teacher = pair(4, 11)
    student.requires_grad_()
    value = chunked(reverse_kl, student, teacher, 3).sum()
    (first,) = torch.autograd.grad(value, student, retain_graph=True)
    (second,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
