"""Weights that exist: any causal LM that transformers loads from a folder, the hub or a GGUF file.

A recipe is untrusted: no code from a repository (`trust_remote_code=False`) and no pickle (`use_safetensors=True`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GgufConfig, PreTrainedModel

from dudi_kit.errors import EnvironmentLack, ModelError
from dudi_kit.recipe.schema.adapters import Quantization
from dudi_kit.recipe.schema.models import Placement

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

MAIN_MEMORY = 2**50
"""Bytes: no limit is set to what lies there."""


def load_model(
    source: str,
    *,
    who: str,
    dtype: str,
    revision: str | None = None,
    gguf_file: str | None = None,
    quantization: Quantization = "none",
    device: torch.device | None = None,
    placement: Placement = "device",
    device_memory: str | None = None,
) -> PreTrainedModel:
    """Load a causal LM.

    who: recipe path for messages, such as `teacher.model`.
    quantization: what its linear layers become while they are loaded; they can't be trained.
    device: where it goes; default: the CPU.
    placement, device_memory: as in `teacher`; what is `sharded` is spread over all GPUs of this one process.
    Raises ModelError with what was asked and the fix, EnvironmentLack where bitsandbytes is missing.
    """
    device = device or torch.device("cpu")
    options: dict[str, object] = {"dtype": DTYPES[dtype], "trust_remote_code": False, "revision": revision}
    # Left alone, transformers fills what a checkpoint lacks with random numbers, and only warns.
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    if gguf_file is not None:
        # Packed GGUF weights would stay slow and can't be saved; unpacked they are ordinary ones.
        options |= {"gguf_file": gguf_file, "quantization_config": GgufConfig(dequantize=True)}
    else:
        options["use_safetensors"] = True
    if quantization != "none":
        # Packed on the device, layer by layer: the whole model is nowhere in bf16. It can't be cast or moved later.
        options |= {"quantization_config": _packing(quantization, DTYPES[dtype]), "device_map": {"": device}}
    if placement == "offload":
        assert device_memory is not None, "the recipe's checks ask for it"
        options |= _offload(device, device_memory)
    if placement == "sharded":
        options["device_map"] = "auto"
    try:
        model, found = AutoModelForCausalLM.from_pretrained(source, **options)
    except ImportError as error:
        if quantization == "none":
            raise
        raise EnvironmentLack(
            f"{who}: {quantization} needs bitsandbytes, which can't be used here: {_first_line(error)}. Install it, or "
            "set quantization: none."
        ) from error
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(_explain(source, who, revision, error)) from error
    _require_all_weights(source, who, found)
    keep_layout(model, lambda layer: bool(layer.in_features % 64 or layer.out_features % 32))
    placed = quantization != "none" or placement != "device"
    return with_contiguous_head(model if placed else model.to(device))


def _offload(device: torch.device, device_memory: str) -> dict[str, object]:
    """accelerate's device map: in order of the layers, what fits into that memory stays, the rest is fetched.

    From main memory; where that is the device, from the safetensors file.
    """
    most: dict[int | str, int | str] = {"cpu": device_memory}
    if device.type == "cuda":
        most = {device.index or 0: device_memory, "cpu": MAIN_MEMORY}
    return {"device_map": "sequential", "max_memory": most}


def _packing(quantization: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """LLM.int8 (arXiv 2208.07339), or NF4 with its scales quantised too, as in QLoRA (arXiv 2305.14314)."""
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_layout(model: nn.Module, which: Callable[[Any], bool]) -> None:
    """Leave these nf4 layers in the layout that they were packed in.

    bitsandbytes 0.50 lays them out anew on a CPU with AVX512-BF16, in their first pass without gradients. That fails
    where a width is no multiple of a block; and from then on the layer gives its input no gradient, without a word.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu") and which(layer):
            setattr(layer, "support_avx512bf16_for_cpu", False)  # noqa: B010 – mypy takes it for a parameter


def with_contiguous_head(model: PreTrainedModel) -> PreTrainedModel:
    """Feed the output head contiguous rows.

    The last positions that `logits_to_keep` cuts out of the hidden states are a strided view, and bf16 weights as they
    lie in a safetensors file are seldom aligned: together they send oneDNN down a path that took 17.0 s where
    contiguous rows take 0.28 s (272 rows, 262,144 × 640, one thread).
    """
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)
    return model


def _contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    hidden, *others = inputs
    return (hidden.contiguous(), *others)


def best_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def freeze(model: PreTrainedModel) -> PreTrainedModel:
    """Evaluation mode and no gradients: for teacher and reference."""
    return model.eval().requires_grad_(False)


def require_frozen(model: nn.Module, who: str) -> None:
    """AssertionError where a frozen model would learn, or drop out what it knows: whatever wrapped it since."""
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert not learning, f"{who} is frozen, and {learning[0]} requires a gradient"
    dropping = [name for name, module in model.named_modules() if module.training]
    assert not dropping, f"{who} is frozen, and {dropping[0] or 'the model'} is in training mode"


def _require_all_weights(source: str, who: str, found: dict[str, Any]) -> None:
    """Refuse a checkpoint that does not fill the model of its config.json."""
    faults = [f"{name} is missing" for name in sorted(found["missing_keys"])]
    faults += [
        f"{name} is {list(theirs)} and should be {list(ours)}"
        for name, theirs, ours in sorted(found["mismatched_keys"])
    ]
    if faults:
        more = f", and {len(faults) - 1:,} more" if len(faults) > 1 else ""
        raise ModelError(
            f"{who}: can't load a causal LM from {source}: its weights do not fit its config.json: {faults[0]}{more}. "
            "Name a complete model with a language modelling head."
        )


def _explain(source: str, who: str, revision: str | None, error: Exception) -> str:
    first = _first_line(error)
    at = f" at revision {revision}" if revision else ""
    if Path(source).is_dir():
        needs = "It needs config.json and .safetensors weights."
        return f"{who}: can't load a causal LM from folder {source}: {first}. {needs}"
    if source.startswith(("/", ".")):
        return f"{who}: no such folder: {source}. Name a transformers folder, or a hub model as owner/name."
    return f"{who}: can't load {source}{at} from the hub: {first}. Is the name right, and is the hub within reach?"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
