"""`deepspeed`: how the engine spreads the student over processes and memories."""

from typing import Annotated

from pydantic import Field

from dudi_kit.recipe.schema.base import Strict


class DeepSpeed(Strict):
    """The engine."""

    stage: Annotated[int, Field(ge=0, le=3)] = 0
    """ZeRO stage: 0 none, 1 shards the optimizer, 2 the gradients too. With bf16, 0 runs as 1; the plan says so."""
