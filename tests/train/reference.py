"""The objective of DESIGN section 1 once more: slow, plain, written from the page and not from the package.

One row at a time without any padding, one token at a time, with its own shift, softmax and divergences. torch serves
for arithmetic and for the gradient only, and nothing of `dudi_kit` is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Item:
    """One row with the student's sample for it, as token ids."""

    prompt: list[int]
    response: list[int]
    rollout: list[int]
    teacher_prompt_off: list[int]
    teacher_prompt_on: list[int]


@dataclass
class Terms:
    """L = α·L_seq + w_off·L_off + w_on·L_on + w_sft·L_sft + w_dft·L_dft; a weight of 0 leaves its term out."""

    alpha: float = 0.0
    off: float = 0.0
    on: float = 0.0
    sft: float = 0.0
    dft: float = 0.0
    beta: float = 0.1
    divergence_off: tuple[str, float] = ("reverse_kl", 0.0)
    divergence_on: tuple[str, float] = ("reverse_kl", 0.0)
    temperature_off: float = 1.0
    temperature_on: float = 1.0
    pieces: int = 0
    values: dict[str, float] = field(default_factory=dict)
    """Filled in: each term's value before its weight."""


def objective(student: Any, teacher: Any, anchor: Any, items: Sequence[Item], terms: Terms) -> Tensor:
    """The loss of the whole batch. anchor: π_ref."""
    total = torch.zeros((), dtype=torch.float64)
    parts = {
        "sequence": (terms.alpha, sequence_loss),
        "off_policy": (terms.off, off_policy_loss),
        "on_policy": (terms.on, on_policy_loss),
        "sft": (terms.sft, sft_loss),
        "dft": (terms.dft, dft_loss),
    }
    for name, (weight, loss_of) in parts.items():
        if weight == 0:
            continue
        loss = loss_of(student, teacher, anchor, items, terms)
        terms.values[name] = float(loss.detach())
        total = total + weight * loss
    return total


def sequence_loss(student: Any, teacher: Any, anchor: Any, items: Sequence[Item], terms: Terms) -> Tensor:
    """Mean over rows of −log σ(β·[(log π(y) − log π_ref(y)) − (log π(ỹ) − log π_ref(ỹ))])."""
    losses = []
    for item in items:
        gain_y = response_logprob(student, item.prompt, item.response)
        gain_y = gain_y - response_logprob(anchor, item.prompt, item.response).detach()
        gain_sample = response_logprob(student, item.prompt, item.rollout)
        gain_sample = gain_sample - response_logprob(anchor, item.prompt, item.rollout).detach()
        margin = terms.beta * (gain_y - gain_sample)
        losses.append(torch.log(1 + torch.exp(-margin)))
    return sum(losses) / len(losses)


def off_policy_loss(student: Any, teacher: Any, anchor: Any, items: Sequence[Item], terms: Terms) -> Tensor:
    losses = []
    for item in items:
        told = predictions(teacher, item.teacher_prompt_off, item.response)
        said = predictions(student, item.prompt, item.response)
        losses += [
            divergence(mine, his.detach(), terms.divergence_off, terms.temperature_off, terms.pieces)
            for mine, his in zip(said, told, strict=True)
        ]
    return sum(losses) / len(losses)


def on_policy_loss(student: Any, teacher: Any, anchor: Any, items: Sequence[Item], terms: Terms) -> Tensor:
    losses = []
    for item in items:
        told = predictions(teacher, item.teacher_prompt_on, item.rollout)
        said = predictions(student, item.prompt, item.rollout)
        losses += [
            divergence(mine, his.detach(), terms.divergence_on, terms.temperature_on, terms.pieces)
            for mine, his in zip(said, told, strict=True)
        ]
    return sum(losses) / len(losses)


def sft_loss(student: Any, teacher: Any, anchor: Any, items: Sequence[Item], terms: Terms) -> Tensor:
    losses = []
    for item in items:
        for logits, token in zip(predictions(student, item.prompt, item.response), item.response, strict=True):
            losses.append(-log_softmax(logits)[token])
    return sum(losses) / len(losses)


def dft_loss(student: Any, teacher: Any, anchor: Any, items: Sequence[Item], terms: Terms) -> Tensor:
    losses = []
    for item in items:
        for logits, token in zip(predictions(student, item.prompt, item.response), item.response, strict=True):
            log_p = log_softmax(logits)[token]
            p = float(torch.exp(log_p.detach()))
            losses.append(-p * log_p)
    return sum(losses) / len(losses)


def response_logprob(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """log p(response | prompt), in nats."""
    logprob = torch.zeros((), dtype=torch.float64)
    for logits, token in zip(predictions(model, prompt, response), response, strict=True):
        logprob = logprob + log_softmax(logits)[token]
    return logprob


def predictions(model: Any, prompt: list[int], response: list[int]) -> list[Tensor]:
    """The logits that predict each response token: what the model says after reading everything before it."""
    logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0]
    return [logits[len(prompt) + i - 1] for i in range(len(response))]


def log_softmax(logits: Tensor) -> Tensor:
    largest = float(logits.detach().max())
    return logits - largest - torch.log(torch.exp(logits - largest).sum())


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q) = Σ p·log(p/q)."""
    return (p * (torch.log(p) - torch.log(q))).sum()


def divergence(mine: Tensor, his: Tensor, kind: tuple[str, float], temperature: float, pieces: int) -> Tensor:
    """D(π, T) of one token. mine: the student's logits; his: the teacher's; both cut to the pieces that both have."""
    student = torch.exp(log_softmax(mine[:pieces] / temperature))
    teacher = torch.exp(log_softmax(his[:pieces] / temperature))
    name, share = kind
    if name == "forward_kl":
        return kl(teacher, student)
    if name == "reverse_kl":
        return kl(student, teacher)
    if name == "jsd":
        mixture = share * teacher + (1 - share) * student
        return share * kl(teacher, mixture) + (1 - share) * kl(student, mixture)
    if name == "skew_forward_kl":
        return kl(teacher, share * teacher + (1 - share) * student)
    if name == "skew_reverse_kl":
        return kl(student, (1 - share) * teacher + share * student)
    raise KeyError(name)
