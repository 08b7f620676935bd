"""`student.adapter`: what is trained beside frozen weights."""

from typing import Annotated, Literal

from pydantic import Field

from dudi_kit.recipe.schema.base import Positive, Strict, Text

Quantization = Literal["none", "int8", "nf4"]


class Lora(Strict):
    """LoRA: two low-rank matrices beside each frozen one, W + alpha/rank·B·A with B = 0 at the start (arXiv
    2106.09685). `final/` holds the merged weights, `final/adapter` the adapter alone in PEFT's format."""

    type: Literal["lora"] = "lora"

    rank: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Rank of B·A."""

    alpha: Positive = 32.0
    """B·A is multiplied by alpha/rank."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of what A reads, while the student learns; never while it samples."""

    targets: Annotated[list[Text], Field(min_length=1)] | None = None
    """Linear layers that get an adapter, by the end of their names, such as `q_proj`; default: all but the output
    head."""

    quantization: Quantization = "none"
    """Packs the frozen linear layers with bitsandbytes; `nf4` is QLoRA (arXiv 2305.14314). What is saved is merged into
    the unpacked weights. Needs `training.precision: bf16`, and ZeRO up to stage 2."""
