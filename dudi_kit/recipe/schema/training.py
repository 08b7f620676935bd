"""`training`: the optimisation."""

from typing import Annotated, Literal

from pydantic import Field

from dudi_kit.recipe.schema.base import Count, Positive, Probability, Seed, Strict, Weight

Schedule = Literal["constant", "linear", "cosine"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]


class Training(Strict):
    """Optimisation with AdamW, or a variant of it."""

    epochs: Positive | None = None
    """Passes over the training rows; give this or `steps`. Default: one epoch."""

    steps: Count | None = None
    """Optimizer steps; give this or `epochs`."""

    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 16
    """Rows of one optimizer step, over all processes and accumulation steps."""

    micro_batch_size: Count | None = None
    """Rows of one forward pass of one process; default: all of the process's share."""

    learning_rate: Positive = 1e-5
    """Peak learning rate."""

    schedule: Schedule = "cosine"
    """Course of the learning rate after the warm-up; `linear` and `cosine` end at 0."""

    warmup: Probability = 0.05
    """Share of the steps in which the learning rate rises to its peak."""

    optimizer: Optimizer = "adamw"
    """`adamw` keeps its moments in fp32. The others are bitsandbytes' (arXiv 2110.02861), with moments of 8 bits, which
    save 6 bytes a parameter; `paged_adamw_8bit` moves them to main memory where a GPU's is full, and needs a GPU. How
    they are rounded depends on the stage and the number of processes."""

    weight_decay: Weight = 0.0
    """Of AdamW, in each step: decoupled from the gradient."""

    betas: Annotated[tuple[Probability, Probability], Field(strict=False)] = (0.9, 0.999)
    """Decay of AdamW's two moments."""

    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this global norm."""

    precision: Literal["fp32", "bf16"] = "bf16"
    """Of forward and backward, and of the weights that are saved; master weights and optimizer are fp32 either way."""

    activation_checkpointing: bool = False
    """Keeps only the input of each of the student's layers for backward, and computes the rest again: about a third
    more time for a small part of the memory. Changes no result."""

    compile: bool = False
    """torch.compile for the layers of student, teacher and reference, but not while sampling. Pays on GPUs; on a CPU
    it cost 25–60 s and gained 0–5 %. Needs ZeRO up to stage 2, and a C++ compiler."""

    packing: bool = False
    """Rows of a micro-batch share lines instead of being padded to the longest, in the passes of student, teacher and
    reference; none sees another. Pays where lengths differ much. Changes no result, and needs models whose attention
    is known to keep rows apart."""

    seed: Seed = 0
    """Of initial weights, order of rows and rollouts."""

    checkpoint_every: Count | None = None
    """Optimizer steps between two checkpoints; default: none but the final model."""

    keep_checkpoints: Count = 2
    """Older checkpoints than these are removed."""

    log_every: Count = 10
    """Optimizer steps between two lines of metrics.jsonl; each is the mean over its steps."""

    stall_timeout: Positive = 30.0
    """Minutes without progress after which a run ends, naming the rank that stands still."""

    gradient_norms_every: Count | None = None
    """Optimizer steps between two measurements of each signal's own weighted gradient: its norm over the global batch,
    and its cosine to the whole gradient. A multiple of `log_every`. Each takes one more pass of all models, a backward
    pass for each signal, and 4 bytes of main memory for each trained parameter and signal. Default: never."""

    deterministic: bool = False
    """Only algorithms that give the same bits every time, on a GPU too; slower. An operation that has none stops the
    run with its name."""
