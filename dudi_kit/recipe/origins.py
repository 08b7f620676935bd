"""The unit of a field, and where its default comes from, for `explain`. What a field means stands in the schema.

The paper (DuDi, arXiv 2606.04694) publishes neither α, λ, β, the learning rate nor how it samples. Where a default is
nobody's but ours, it says so.
"""

from typing import NamedTuple

PAPER = "the paper (DuDi, arXiv 2606.04694)"
UNPUBLISHED = "our choice: the paper does not publish it. Tune it on held-out data"
OURS = "our choice"


class Origin(NamedTuple):
    """What the schema can't say about a number."""

    unit: str = ""
    source: str = ""
    """Of the default."""


TOKEN_SIGNAL = {
    "weight": Origin(source=f"{UNPUBLISHED} (λ = 0.5)"),
    "divergence": Origin("nats", f"{PAPER}: reverse KL beats JSD and forward KL"),
    "divergence.beta": Origin(source="half-way between the two KLs"),
    "divergence.alpha": Origin(source="DistiLLM (arXiv 2402.03898)"),
    "temperature": Origin(source="the models' own distributions"),
}

ORIGINS: dict[str, Origin] = {
    "teacher.dtype": Origin(source="convention: bf16 halves the memory of a teacher that is only read"),
    "student.cold_start.epochs": Origin("passes"),
    "student.cold_start.steps": Origin("optimizer steps"),
    "student.architecture.context": Origin("tokens", "as data.max_length"),
    "student.architecture.hidden_size": Origin("dimensions", OURS),
    "student.architecture.intermediate_size": Origin("dimensions", "convention of SwiGLU: as many parameters as 4 ×"),
    "student.tokenizer.vocabulary_size": Origin("pieces", OURS),
    "data.train.*.limit": Origin("rows"),
    "data.train.*.weight": Origin("× once an epoch", "natural shares"),
    "data.language_temperature": Origin(source="natural shares"),
    "data.max_length": Origin("tokens", PAPER),
    "verbalizer.demonstration.languages": Origin(source=f"{PAPER}: the target language and English"),
    "verbalizer.demonstration.terms": Origin(source=f"{PAPER}: L_on alone is conditioned on z"),
    "verbalizer.demonstration.max_tokens": Origin("tokens"),
    "signals.sequence.weight": Origin(source=UNPUBLISHED),
    "signals.sequence.beta": Origin("1/nats", "convention of DPO; the paper does not publish its β"),
    "signals.sequence.reference.every": Origin("optimizer steps"),
    **{f"signals.{term}.{key}": told for term in ("off_policy", "on_policy") for key, told in TOKEN_SIGNAL.items()},
    "rollouts.max_new_tokens": Origin("tokens", OURS),
    "rollouts.temperature": Origin(source="samples of the student as it is, as L_on is defined"),
    "rollouts.top_p": Origin(source="samples of the student as it is, as L_on is defined"),
    "rollouts.every": Origin("optimizer steps", "L_seq and L_on are part of every step"),
    "rollouts.prompts_at_once": Origin("rows"),
    "rollouts.engine.refresh_every": Origin("optimizer steps", "samples of the student as it is"),
    "rollouts.engine.timeout": Origin("seconds", OURS),
    "rollouts.engine.concurrency": Origin("requests", OURS),
    "rollouts.log_samples": Origin("samples of a language", OURS),
    "training.epochs": Origin("passes"),
    "training.steps": Origin("optimizer steps"),
    "training.batch_size": Origin("rows", OURS),
    "training.micro_batch_size": Origin("rows"),
    "training.learning_rate": Origin(source=UNPUBLISHED),
    "training.schedule": Origin(source="convention"),
    "training.warmup": Origin("share of the steps", "convention"),
    "training.betas": Origin(source="AdamW's own"),
    "training.max_grad_norm": Origin(source="convention"),
    "training.precision": Origin(source="convention"),
    "training.checkpoint_every": Origin("optimizer steps"),
    "training.log_every": Origin("optimizer steps", OURS),
    "training.gradient_norms_every": Origin("optimizer steps"),
    "evaluation.batch_size": Origin("rows", OURS),
    "evaluation.tasks.*.max_new_tokens": Origin("tokens", OURS),
}
"""Path → origin; `*` stands for any key. A test sees that each path is one."""


def origin(path: tuple[str, ...]) -> Origin:
    """That of a path; an empty one where there is none to tell."""
    matching = (ORIGINS[known] for known in ORIGINS if _matches(path, known.split(".")))
    return next(matching, Origin())


def _matches(path: tuple[str, ...], known: list[str]) -> bool:
    return len(path) == len(known) and all("*" in (k, p) or k == p for p, k in zip(path, known, strict=True))
