"""What the benchmarks of speed share: timing by turns, peaks of fresh processes, results that are kept, tables.

Two ways of doing the same are timed by turns in one process, since a machine's speed changes from minute to minute. A
peak is taken in a process of its own, since memory that was freed is not given back.
"""

import argparse
import ctypes
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
Measured = Callable[[Mapping[str, Any]], dict[str, Any]]
"""A cell's settings → what was found."""

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
PACKAGES = ("torch", "transformers", "trl", "liger-kernel", "deepspeed")


def arguments(text: str | None) -> argparse.ArgumentParser:
    """--quick, --into, --again and --dtype, which all scripts have."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that the script runs")
    parser.add_argument("--into", type=Path, help="folder of the results; default: benchmarks/results")
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    parser.add_argument("--dtype", choices=DTYPES, default=quick_dtype(), help="of models; default: what is quick here")
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    return parser


def machine() -> dict[str, Any]:
    """What a figure depends on."""
    return {
        "date": time.strftime("%-d %B %Y"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count())),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def quick_dtype() -> str:
    """`bf16` where the processor multiplies it, else `fp32`: with AVX2 alone, bf16 took fifty times as long."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "bf16" if re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) else "fp32"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


class Results:
    """Cells that were measured, by name, in a JSON file: a script that is stopped goes on where it was."""

    def __init__(self, name: str, options: argparse.Namespace, measured: Measured) -> None:
        """name: of the script."""
        # A quick run is there to see that all works: importing torch anew for each cell would take it minutes.
        self.measured = measured if options.quick else partial(in_a_process, f"benchmarks.{name}")
        temporary = Path(tempfile.gettempdir()) / "dudi-kit-benchmarks"
        self.path: Path = (options.into or (temporary if options.quick else HERE / "results")) / f"{name}.json"
        kept = json.loads(self.path.read_text()) if self.path.exists() and not (options.again or options.quick) else {}
        self.cells: dict[str, Any] = kept.get("cells", {})

    def cell(self, name: str, settings: Mapping[str, Any]) -> Any:
        """A cell, measured now, in a process of its own, if it is not there or was asked for otherwise."""
        asked = json.loads(json.dumps(settings))
        if name not in self.cells or self.cells[name].get("asked") != asked:
            print(f"… {name}", file=sys.stderr, flush=True)
            self.cells[name] = self.measured(settings) | {"asked": asked, "machine": machine()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps({"cells": self.cells}, indent=1) + "\n")
        return self.cells[name]

    def heading(self) -> str:
        """Where and when: of the oldest cell."""
        facts = next(iter(self.cells.values()))["machine"]
        packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
        return (
            f"{facts['date']}, {facts['processor']}, {facts['cores']} cores, {facts['threads']} threads; {packages}\n"
        )


def by_turns(ways: Mapping[str, Callable[[], Any]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of each way in each round. The first `warm` rounds, in which kernels are made, do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm + rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: median(values) for name, values in seconds.items()}


def in_a_process(module: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    """What `python -m MODULE --cell JSON` prints last, as JSON."""
    command = [sys.executable, "-m", module, "--cell", json.dumps(cell)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        raise RuntimeError(f"{cell}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_beyond(work: Callable[[], Any]) -> int:
    """Bytes that a call needs at its peak beyond what this process held before, what lay free in its heap left out."""
    ctypes.CDLL(None).malloc_trim(0)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    work()
    return status("VmHWM") - before


def begin(options: argparse.Namespace, main: Callable[[argparse.Namespace], None], measured: Measured) -> None:
    """One cell, in the process that was started for it, or all of the script."""
    if options.cell:
        print(json.dumps(measured(options.cell)))
    else:
        main(options)


def status(what: str) -> int:
    """Bytes, of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def line_through(x: Iterable[float], y: Iterable[float]) -> tuple[float, float, float]:
    """Slope, intercept and R² of the least-squares line."""
    at, value = np.array(list(x), dtype=float), np.array(list(y), dtype=float)
    slope, intercept = np.polyfit(at, value, 1)
    rest = value - (slope * at + intercept)
    return float(slope), float(intercept), float(1 - (rest**2).sum() / ((value - value.mean()) ** 2).sum())


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Markdown; the first column is text, the others are numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"
