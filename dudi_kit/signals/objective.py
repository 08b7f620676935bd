"""The objective: L = Σ weight · mean, each signal's mean being over the global batch."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dudi_kit.signals.result import SignalResult


def combine(
    results: Mapping[str, SignalResult], weights: Mapping[str, float], global_counts: Mapping[str, Tensor | float]
) -> Tensor:
    """Σ_k weight_k · (Σ_B total_k) / max(global count_k, 1), a scalar in nats.

    results: one micro-batch of one rank. global_counts: each signal's count over all ranks and accumulation steps of
    this optimizer step. So the *sum* of this over ranks and micro-batches is the loss of the global batch, however it
    was split; whoever averages gradients (over ranks, or over accumulation steps) must multiply it back.
    A signal without a valid item anywhere adds 0 and a zero gradient, and stays in the graph.
    """
    terms = []
    for name, result in results.items():
        count = torch.as_tensor(global_counts[name], dtype=result.total_B.dtype, device=result.total_B.device)
        terms.append(weights[name] * result.total_B.sum() / count.clamp(min=1))
    return torch.stack(terms).sum()
