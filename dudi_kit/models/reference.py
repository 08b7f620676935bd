"""π_ref: the frozen copy of the student that anchors the sequence signal."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dudi_kit.models.loading import freeze


def frozen_copy(student: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The student as it is now, frozen, in the dtype that the engine will give it: π_ref = π before the first step.

    Call it before the engine takes the student over. As the engine does, only parameters are cast: rotary frequencies
    in bf16 would bend every distant position.
    """
    reference = copy.deepcopy(student)
    for parameter in reference.parameters():
        if parameter.is_floating_point():  # what bitsandbytes packed is not
            parameter.data = parameter.data.to(dtype)
    return freeze(reference)


@torch.no_grad()
def refresh(reference: nn.Module, student: Mapping[str, Tensor]) -> None:
    """Give the reference the student's present weights. student: name → tensor, as in its state dict."""
    for name, tensor in reference.state_dict().items():
        tensor.copy_(student[name])
