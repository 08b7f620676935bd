"""Training once more: slow, plain, without DeepSpeed, Accelerate, padding or a batch. It gives the losses to be met.

The objective is that of `reference.py`. Of the package come the planned rows in their order, the settings and the two
models as they are loaded, and nothing of how it trains; samples are greedy, so that nothing is drawn.
"""

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from dudi_kit.data.encode import Encoder
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.plan.build import teaching_of
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import read_plan
from dudi_kit.recipe.publish import recipe_from_resolved
from dudi_kit.recipe.schema.signals import TokenSignal
from dudi_kit.recipe.schema.training import Training
from dudi_kit.train.assembly import planned_rows
from tests.train import reference
from tests.train.reference import Item, Terms


class Trained(NamedTuple):
    losses: list[float]
    """Before each step."""

    norms: list[float]
    """Of the gradient, before clipping."""

    weights: dict[str, Tensor]


def train_plainly(run: RunDir) -> Trained:
    """Train a planned run directory; nothing in it is changed."""
    plan, recipe = read_plan(run), recipe_from_resolved(run.resolved.read_text(encoding="utf-8"))
    encoder = Encoder(load_tokenizer(str(run.tokenizer)), who="student")
    teaching = teaching_of(plan, run, encoder)
    assert teaching is not None
    rows = planned_rows(run, recipe, plan, encoder, teaching)
    assert plan.start is not None
    assert plan.teacher is not None
    assert recipe.rollouts.temperature == 0
    student = AutoModelForCausalLM.from_pretrained(plan.start.path, dtype=torch.float32).train()
    teacher = AutoModelForCausalLM.from_pretrained(plan.teacher.path, dtype=torch.float32).eval()
    anchor = copy.deepcopy(student).eval()
    optimizer = torch.optim.AdamW(student.parameters(), betas=recipe.training.betas, weight_decay=0.0)
    pieces = teaching.vocabulary.size
    losses, norms = [], []
    for step in range(plan.steps):
        items = []
        for index in rows.mixture.rows(step, plan.batch_size):
            row = rows.rows[index]
            sample = greedy(student, row.prompt, pieces, set(encoder.stop_ids), recipe.rollouts.max_new_tokens)
            prompts = row.teacher_prompts
            items.append(Item(row.prompt, row.response, sample, prompts["off_policy"], prompts["on_policy"]))
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe.training, step, plan.steps)
        loss = reference.objective(student, teacher, anchor, items, terms_of(recipe.signals, pieces))
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(student.parameters(), recipe.training.max_grad_norm)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return Trained(losses, norms, student.state_dict())


@torch.no_grad()
def greedy(model: Any, prompt: list[int], pieces: int, stops: set[int], most: int) -> list[int]:
    """Reads everything again for each token."""
    said: list[int] = []
    while len(said) < most and not stops & set(said):
        logits = model(input_ids=torch.tensor([prompt + said]), use_cache=False).logits[0, -1]
        said.append(int(logits[:pieces].argmax()))
    return said


def rate(training: Training, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to 0."""
    assert training.schedule == "cosine"
    rise = round(training.warmup * steps)
    if step < rise:
        return training.learning_rate * (step + 1) / (rise + 1)
    return training.learning_rate * (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2


def terms_of(signals: Any, pieces: int) -> Terms:
    def kind(signal: TokenSignal) -> tuple[str, float]:
        return signal.divergence.type, getattr(signal.divergence, "beta", getattr(signal.divergence, "alpha", 0.0))

    return Terms(
        alpha=signals.sequence.weight, off=signals.off_policy.weight, on=signals.on_policy.weight,
        sft=signals.sft.weight, dft=signals.dft.weight, beta=signals.sequence.beta,
        divergence_off=kind(signals.off_policy), divergence_on=kind(signals.on_policy),
        temperature_off=signals.off_policy.temperature, temperature_on=signals.on_policy.temperature, pieces=pieces,
    )  # fmt: skip
