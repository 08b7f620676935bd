"""Gradients by signal against torch's own backward, signal by signal."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from dudi_kit.signals.objective import combine
from dudi_kit.signals.result import SignalResult
from dudi_kit.train import gradients
from dudi_kit.train.gradients import SignalGradients

WEIGHTS = {"sequence": 0.7, "off_policy": 0.4, "sft": 2.0}
ROWS = 6
COUNTS = {name: torch.tensor(float(n)) for name, n in zip(WEIGHTS, (6, 20, 11), strict=True)}
INPUTS_BI = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(0))


def model() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    made.add_module("unused", nn.Linear(2, 2))
    return made


def results(module: nn.Module, rows: slice | Sequence[int]) -> dict[str, SignalResult]:
    """Three signals that share a forward pass."""
    out_B3 = module[:3](INPUTS_BI[rows])
    per_row: dict[str, Tensor] = {
        "sequence": out_B3[:, 0] ** 2, "off_policy": out_B3.sin().sum(-1), "sft": -out_B3[:, 2]
    }  # fmt: skip
    return {name: SignalResult(total_B, torch.ones(len(total_B))) for name, total_B in per_row.items()}


def by_hand(names: Sequence[str]) -> Tensor:
    """The gradient of some signals over the whole batch."""
    module = model()
    combine({name: results(module, slice(None))[name] for name in names}, WEIGHTS, COUNTS).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def add(kept: SignalGradients, module: nn.Module, rows: slice | Sequence[int], weights: Mapping[str, float]) -> None:
    """Each signal from a pass of its own."""
    for name in weights:
        kept.add(name, combine({name: results(module, rows)[name]}, weights, COUNTS))


def measured(parts: Sequence[slice]) -> dict[str, dict[str, float | None]]:
    module = model()
    kept = SignalGradients(module, WEIGHTS)
    for part in parts:
        add(kept, module, part, WEIGHTS)
    assert all(p.grad is None for p in module.parameters()), "measuring leaves nothing on the parameters"
    return kept.read_out(torch.device("cpu"))


@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("piece", [7, 1 << 24])
def test_norm_and_cosine_are_those_of_each_signals_own_backward(monkeypatch, size, piece):
    monkeypatch.setattr(gradients, "PIECE", piece)
    found = measured([slice(start, start + size) for start in range(0, ROWS, size)])
    whole = by_hand(list(WEIGHTS))
    for name in WEIGHTS:
        own = by_hand([name])
        assert found[name]["norm"] == pytest.approx(float(own.norm()), rel=1e-5)
        assert found[name]["cosine"] == pytest.approx(float(torch.cosine_similarity(own, whole, dim=0)), rel=1e-5)


def test_the_signals_pull_in_different_directions_so_that_the_comparison_means_something():
    cosines = [each["cosine"] for each in measured([slice(None)]).values()]
    assert max(cosines) - min(cosines) > 0.1


def test_a_signal_without_any_gradient_has_no_direction():
    module = model()
    kept = SignalGradients(module, ["sft", "sequence"])
    add(kept, module, slice(None), {"sft": 1.0, "sequence": 0.0})
    found = kept.read_out(torch.device("cpu"))
    assert found["sequence"] == {"norm": 0.0, "cosine": None}
    assert found["sft"]["cosine"] == pytest.approx(1.0)


def test_frozen_parameters_are_left_out():
    module = model()
    module[0].requires_grad_(False)
    kept = SignalGradients(module, ["sft"])
    assert sum(p.numel() for p in kept.parameters) == 4 * 3 + 3 + 2 * 2 + 2
