"""torch.compile, layer by layer: all layers of a model share one compilation, and hooks on the model itself stay."""

import importlib.util
import os
import shutil

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from dudi_kit.errors import EnvironmentLack

VARIANTS = 64
"""Of a layer: for each model, with and without a mask, with and without a gradient, for one line and for more. By
itself torch makes 8, and leaves others uncompiled."""


def compile_layers(model: nn.Module, *, backend: str = "inductor") -> None:
    """Compile the forward pass of every decoder layer, in place, for inputs of any length; it happens when first used.

    Call `require_compiler` before weights are loaded. backend: torch's own, which makes machine code.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):  # what transformers makes all its layers of
            module.compile(dynamic=True, backend=backend)


def require_compiler() -> None:
    """EnvironmentLack where torch.compile has nothing to make machine code with."""
    asked = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([asked] if asked else ["g++", "clang++"])):
        raise EnvironmentLack(
            f"training.compile needs a C++ compiler, and there is no {asked or 'g++ or clang++'} here. Install one, or "
            "set it to false."
        )
    if torch.cuda.is_available() and importlib.util.find_spec("triton") is None:
        raise EnvironmentLack("training.compile needs triton on a GPU. Install it, or set it to false.")
