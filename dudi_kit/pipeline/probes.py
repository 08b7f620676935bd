"""What can only be learned about a machine by trying: each probe runs in a process of its own.

`python -m dudi_kit.pipeline.probes NAME` prints a JSON object. A library that hangs, aborts or talks while it is
imported takes nothing else with it, and the probes run side by side.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any


def torch_devices() -> dict[str, Any]:
    """torch, the devices that it sees, and whether they compute in bf16."""
    import torch

    devices = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            devices.append({"name": properties.name, "bytes": properties.total_memory})
    kind = "CUDA" if torch.version.cuda else "ROCm" if torch.version.hip else "CPU"
    bf16 = torch.cuda.is_bf16_supported() if devices else _cpu_has_bf16()
    return {"version": torch.__version__, "build": kind, "devices": devices, "bf16": bf16}


def deepspeed_ops() -> dict[str, Any]:
    """DeepSpeed, and which of its own ops it could compile here."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed.git_version_info import installed_ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS
    from torch.utils.cpp_extension import is_ninja_available

    ops = {name: _is_compatible(op) for name, op in sorted(ALL_OPS.items()) if name != "deepspeed_not_implemented"}
    return {
        "version": deepspeed.__version__,
        "built": sorted(name for name in ops if installed_ops.get(name)),
        "compatible": sorted(name for name, fits in ops.items() if fits),
        "incompatible": sorted(name for name, fits in ops.items() if not fits),
        "compiler": shutil.which("g++") or shutil.which("c++"),
        "ninja": is_ninja_available(),
    }


def bitsandbytes_nf4() -> dict[str, Any]:
    """A small matrix into nf4 and back, on the first device."""
    import bitsandbytes
    import torch
    from bitsandbytes import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.linspace(-1, 1, 64 * 64, device=device).to(torch.bfloat16).view(64, 64)
    packed, state = functional.quantize_4bit(matrix, quant_type="nf4")
    back = functional.dequantize_4bit(packed, state)
    error = (back - matrix).abs().max().item()
    return {"version": bitsandbytes.__version__, "device": device, "bytes": packed.numel(), "error": error}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": torch_devices,
    "deepspeed": deepspeed_ops,
    "bitsandbytes": bitsandbytes_nf4,
}


def _cpu_has_bf16() -> bool:
    """Instructions for bf16; without them it is emulated, and slower than fp32."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = file.read()
    except OSError:
        return False
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def _is_compatible(op: Any) -> bool:
    # A probe of an op may fail where a part of the toolkit is missing; then it can't be compiled either.
    with contextlib.suppress(Exception):
        return bool(op.is_compatible(False))
    return False


def main(name: str) -> None:
    """Run one probe. What libraries print goes to stderr, so that stdout is the answer alone."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            answer = PROBES[name]()
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}".split("\n")[0][:300]}
    print(json.dumps(answer))  # noqa: T201 – the answer


if __name__ == "__main__":
    main(sys.argv[1])
