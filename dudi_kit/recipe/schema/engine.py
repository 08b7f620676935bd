"""`deepspeed`: how the engine spreads the student over processes and memories."""

from typing import Annotated, Any, Literal

from pydantic import Field

from dudi_kit.recipe.schema.base import Strict, Text

Place = Literal["none", "cpu", "nvme"]
"""Where a part of the engine is kept between its uses: with the process's device, in main memory, on a disk."""


class Offload(Strict):
    """Parts of the student that leave the GPU. On a CPU there is one memory, and offloading saves nothing."""

    optimizer: Place = "none"
    """Master weights and moments, which are updated there, by the CPU: 12 bytes a parameter. `cpu` needs stage 1 or
    more, `nvme` stage 3. Where a GPU is, DeepSpeed's own CPU Adam is compiled and used."""

    parameters: Place = "none"
    """The weights, brought in layer by layer. Needs stage 3."""

    nvme_path: Text | None = None
    """Folder on a fast disk of each machine, which is written to. Needed with `nvme`."""


class DeepSpeed(Strict):
    """The engine."""

    stage: Annotated[int, Field(ge=0, le=3)] = 0
    """ZeRO stage: 0 none, 1 shards the optimizer over the processes, 2 the gradients too, 3 the weights as well. With
    bf16, 0 runs as 1; the plan says so. All learn the same."""

    offload: Offload = Offload()
    extra: dict[Text, Any] = Field(default={})
    """Further keys of DeepSpeed's own configuration, such as `{zero_optimization: {reduce_bucket_size: 100000000}}`. A
    key that a field of the recipe stands for, or that dudi-kit sets itself, is refused."""
