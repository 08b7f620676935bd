"""What the machine does meanwhile: memory of every process, and how busy its GPU is."""

import resource
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

STATM = Path("/proc/self/statm")
STATUS = Path("/proc/self/status")
UNKNOWN = -1.0


def system_line(device: torch.device, rank: int, processes: int) -> dict[str, Any]:
    """For a line of metrics.jsonl: each quantity's maximum over the processes and, with several, its value by rank.

    Every process must call it. GPU peaks are since the last call.
    """
    mine = _measured(device)
    table = torch.zeros(processes, len(mine), dtype=torch.float64, device=device)
    table[rank] = torch.tensor(list(mine.values()), dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(table)
    columns = zip(mine, table.T.tolist(), strict=True)
    return {name: _told(values) for name, values in columns if UNKNOWN not in values}


def _told(values: list[float]) -> dict[str, Any]:
    by_rank = {str(rank): value for rank, value in enumerate(values)}
    return {"max": max(values), **({"by_rank": by_rank} if len(values) > 1 else {})}


def _measured(device: torch.device) -> dict[str, float]:
    """Bytes, and per cent of the time."""
    measured = {"resident_bytes": float(resident_bytes())}
    if device.type != "cuda":
        return measured
    measured |= {
        "gpu_allocated_bytes": float(torch.cuda.memory_allocated(device)),
        "gpu_reserved_bytes": float(torch.cuda.memory_reserved(device)),
        "gpu_peak_bytes": float(torch.cuda.max_memory_allocated(device)),
        "gpu_busy_percent": _busy(device),
    }
    torch.cuda.reset_peak_memory_stats(device)
    return measured


def resident_bytes() -> int:
    """Main memory that this process holds; where the system does not say, the most that it has held."""
    try:
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return _most_resident()


def peak_bytes(device: torch.device) -> int:
    """The most that this process has held: of its GPU, since its peaks were last reset; else of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return next(
            int(line.split()[1]) * 1024
            for line in STATUS.read_text().splitlines()
            if line.startswith("VmHWM:")  # ru_maxrss keeps the size of who started this process
        )
    except (OSError, StopIteration):
        return _most_resident()


def _most_resident() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _busy(device: torch.device) -> float:
    """Of the last sample period; UNKNOWN where the package nvidia-ml-py, which torch asks, is missing or can't say."""
    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # the driver's errors have no type in common
        return UNKNOWN
