"""All that the memory of a training process depends on."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from dudi_kit.data.batches import Sharing
from dudi_kit.plan.engine import MOST_IN_A_BUCKET, Offloaded
from dudi_kit.plan.shape import ModelShape
from dudi_kit.recipe.schema.adapters import Quantization
from dudi_kit.recipe.schema.models import Dtype, Placement
from dudi_kit.recipe.schema.training import Optimizer

BYTES: dict[Dtype, int] = {"fp32": 4, "bf16": 2}
FP32 = 4
ANY = 2**31
"""Longer than any rollout."""


class Inputs(NamedTuple):
    """The largest inputs of a step, in padded columns."""

    rows: int
    """Of a micro-batch."""

    prompt: int
    response: int
    row: int
    """A prompt with its response."""

    teacher_prompt: int
    """Before a rollout."""

    teacher_row: int
    """With a response of the corpus."""

    sampled_rows: int
    """Prompts that a process continues at once; 0 where a server does it."""

    sampled_prompt: int

    apart: int = ANY
    """Longest rollout beside which the student reads y and ỹ in lines of their own, and not behind one prompt in one;
    0 where there is none."""

    teacher_apart: int = ANY
    """The same of the teacher."""


@dataclass(frozen=True)
class Job:
    """All that the memory of a training process depends on."""

    student: ModelShape
    teacher: ModelShape | None
    teacher_dtype: Dtype
    quantization: Quantization
    precision: Dtype
    stage: int
    """Of ZeRO, as the recipe asks."""

    processes: int
    accumulation: int
    signals: frozenset[str]
    new_tokens: int
    inputs: tuple[Inputs, ...]
    """None of them is the largest in everything."""

    on_cpu: bool

    optimizer: Optimizer = "adamw"
    offloaded: frozenset[Offloaded] = frozenset()
    """What is in main memory or on a disk, at the stages that can do it."""

    bucket: int = MOST_IN_A_BUCKET
    """Elements that ZeRO reduces at once (`reduce_bucket_size`). On a GPU the whole bucket is allocated, always."""

    adapter: int | None = None
    """Parameters of the student's adapter: only they are trained. None: all of the student's are."""

    packed: Quantization = "none"
    """How the frozen weights under an adapter are packed."""

    copies_reference: bool = True
    """False where the reference is the student without its adapter."""

    spans: bool = False
    """Teacher and student have tokens of their own (`align`), so that stretches of some are compared as a whole."""

    cache: Literal["none", "top_k", "hidden"] = "none"
    """What is kept of what the teacher says of the corpus."""

    recomputes: bool = False
    """Activation checkpointing."""

    packs: bool = False
    """Rows share lines."""

    sharing: Sharing | None = None
    """How the student reads y and ỹ behind one prompt, where that is less work; None where it can't, or reads one."""

    teacher_sharing: Sharing | None = None
    """The same of the teacher."""

    placement: Placement = "device"
    """Of the teacher."""

    device_memory: int | None = None
    """The most that an offloaded teacher's weights take, in bytes."""

    @property
    def learner(self) -> "Job":
        """As far as it learns: the student, or its adapter alone."""
        if self.adapter is None:
            return self
        return replace(self, student=replace(self.student, parameters=self.adapter, vocabulary=0), adapter=None)

    @property
    def size(self) -> int:
        """Bytes of one element of the student's weights and activations."""
        return BYTES[self.precision]

    def offloads(self, part: Offloaded) -> bool:
        """The part leaves the GPU at this stage; on a CPU there is nowhere to go."""
        return part in self.offloaded and not self.on_cpu and self.stage >= {"optimizer": 1, "parameters": 3}[part]

    @property
    def sides(self) -> int:
        """Rows that the student reads of a pair: y, ỹ or both."""
        return len(self.reads())

    def reads(self) -> list[str]:
        """The responses that some signal needs."""
        corpus = {"sequence", "off_policy", "sft", "dft"} & self.signals
        return [side for side, needed in (("corpus", corpus), ("rollout", self.rolls_out)) if needed]

    @property
    def share(self) -> int:
        """Rows of a process in one step."""
        return max(inputs.rows for inputs in self.inputs) * self.accumulation

    @property
    def has_groups(self) -> bool:
        """Some tokens are judged together: the two responses of a pair, or those of a span."""
        return "sequence" in self.signals or (self.spans and self.teacher_terms > 0)

    @property
    def rolls_out(self) -> bool:
        """Some signal reads ỹ."""
        return bool({"sequence", "on_policy"} & self.signals)

    @property
    def teacher_terms(self) -> int:
        """Rows that the teacher reads of a pair."""
        return len({"off_policy", "on_policy"} & self.signals) if self.teacher else 0
