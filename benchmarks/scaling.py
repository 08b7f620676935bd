"""What a step costs against length, batch, vocabulary and processes; and how long it takes to begin.

    python -m benchmarks.scaling            some ten minutes; goes on where it was stopped
    python -m benchmarks.scaling --quick    tiny models, a minute

Steps are those of `benchmarks.step`, all three signals: 4 layers of 256 and a teacher of 4 × 512, batch 8, prompts of
32 tokens, responses of 64, V = 32,000, with one thing changed at a time. Processes are compared on whole training runs,
optimizer and log included, with the global batch held: each process has its own share of the cores, so two processes
can gain over one only what one fails to use.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import HERE, Results, arguments, begin, by_turns, line_through, medians, table
from dudi_kit.train.heap import keep_heap

BASE: dict[str, Any] = {"layers": 4, "hidden": 256, "pieces": 32_000, "rounds": 5, "teacher": (4, 512)}
TINY: dict[str, Any] = {
    "layers": 2, "hidden": 64, "pieces": 500, "rounds": 1, "teacher": (2, 64), "batch": 2, "response": 16
}  # fmt: skip
CHANGES: dict[str, Sequence[int]] = {
    "response": (32, 64, 128, 256),
    "prompt": (32, 128, 256, 512),
    "batch": (2, 4, 8, 16),
    "pieces": (8_000, 32_000, 64_000, 151_936),
}
SMALL_CHANGES: dict[str, Sequence[int]] = {"response": (16, 32, 48), "batch": (1, 2)}
UNITS = {"response": "tokens of a response", "prompt": "tokens of a prompt", "batch": "rows", "pieces": "pieces"}

DUDI_KIT = [sys.executable, "-m", "dudi_kit.cli"]


def measured(cell: Mapping[str, Any]) -> dict[str, Any]:
    return MEASURES[cell["of"]](cell)


def timed_step(cell: Mapping[str, Any]) -> dict[str, Any]:
    """One shape."""
    from benchmarks.step import World, steps

    keep_heap()  # as training does
    world = World(cell["shape"])
    seconds = by_turns({"step": steps(world)["ours, all three"]}, world.shape["rounds"])
    return {"seconds": medians(seconds)["step"], "rounds": seconds}


def timed_run(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A training run of so many processes, with `--profile`."""
    from benchmarks.memory import Case, prepare

    dtype = cell["dtype"]
    case = Case("ranks", cell["hidden"], cell["layers"], cell["pieces"], dtype, words=32, new_tokens=64, batch_size=16)
    with tempfile.TemporaryDirectory() as folder:
        recipe = prepare(case._replace(micro_batch_size=8, teacher_dtype=dtype), Path(folder))
        processes, threads = cell["processes"], cell["threads"]
        options = ["--processes", str(processes), "--profile", f"--training.steps={cell['steps']}"]
        dudi_kit("train", str(recipe), "--output", f"{folder}/out", *options, threads=threads)
        profile = json.loads((Path(folder) / "out/ranks/logs/profile.json").read_text())
    slowest = max((rank["main"] for rank in profile["ranks"]), key=lambda main: main["step"]["median"])
    return {"seconds": slowest["step"]["median"], "profile": profile}


def timed_start(cell: Mapping[str, Any]) -> dict[str, Any]:
    """How long commands take to say something."""
    from benchmarks.memory import Case, prepare

    imported = [sys.executable, "-c", "import dudi_kit.cli"]
    with tempfile.TemporaryDirectory() as folder:
        recipe = str(prepare(Case("start", 128, 2, 1_000, "fp32", teacher_dtype="fp32"), Path(folder)))
        into = ["--output", f"{folder}/out"]
        found = {
            "import dudi_kit.cli": _median(partial(subprocess.run, imported, check=True), cell["rounds"]),
            "--help": _median(partial(dudi_kit, "--help"), cell["rounds"]),
            "validate": _median(partial(dudi_kit, "validate", recipe), cell["rounds"]),
            "plan": _median(partial(dudi_kit, "plan", recipe, *into), cell["rounds"]),
            "train, to the first step's line": to_first_step(recipe, folder),
        }
    return {"seconds": found}


MEASURES = {"step": timed_step, "run": timed_run, "start": timed_start}


def to_first_step(recipe: str, folder: str) -> float:
    metrics = Path(folder) / "first/start/metrics.jsonl"
    began = time.perf_counter()
    command = [*DUDI_KIT, "train", recipe, "--output", f"{folder}/first"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HERE.parent) as process:
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                raise RuntimeError(f"training ended with exit code {process.returncode}")
            time.sleep(0.01)
        return time.perf_counter() - began


def dudi_kit(*words: str, threads: int | None = None) -> None:
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    subprocess.run([*DUDI_KIT, *words], check=True, capture_output=True, cwd=HERE.parent, env=environment)


def _median(way: Any, rounds: int) -> float:
    return median(by_turns({"way": way}, rounds)["way"])


# --- tables


def along(results: Results, base: Mapping[str, Any], changed: str, values: Sequence[int]) -> None:
    rows, seconds = [], []
    for value in values:
        shape = base | {changed: value}
        found = results.cell(f"step: {changed} {value}", {"of": "step", "shape": shape})
        seconds.append(found["seconds"])
        rows.append([f"{value:,}", f"{seconds[-1]:.3f}", f"{seconds[-1] / seconds[0]:.2f}"])
    print(f"\n### {UNITS[changed]}\n")
    print(table([UNITS[changed], "seconds of a step", "times the first"], rows))
    slope, intercept, r2 = line_through(values, seconds)
    print(f"seconds = {intercept:.3g} + {1000 * slope:.3g} for 1,000, R² = {r2:.4f}", flush=True)


def processes(results: Results, shape: Mapping[str, Any]) -> None:
    cores = os.cpu_count() or 1
    rows = []
    splits = dict.fromkeys([(1, 1), (1, cores), (2, max(cores // 2, 1))])
    for count, threads in splits:
        cell = dict(shape) | {"of": "run", "processes": count, "threads": threads}
        seconds = results.cell(f"run: {count} processes of {threads} threads", cell)["seconds"]
        rows.append((count, threads, seconds))
    print("\n### Processes\n")
    whole = rows[1 if len(rows) > 2 else 0][2]
    cells = [[count, threads, f"{s:.3f}", f"{rows[0][2] / s:.2f}", f"{whole / s:.2f}"] for count, threads, s in rows]
    heads = [
        "processes",
        "threads of each",
        "seconds of a step",
        "against one thread",
        "against one process, all cores",
    ]
    print(table(heads, cells), flush=True)


def start(results: Results, rounds: int) -> None:
    seconds = results.cell("start", {"of": "start", "rounds": rounds})["seconds"]
    print("\n### Beginning\n")
    print(table(["what", "seconds"], [[what, f"{value:.2f}"] for what, value in seconds.items()]))


def main(options: argparse.Namespace) -> None:
    results, quick = Results("scaling", options, measured), options.quick
    base = (TINY if quick else BASE) | {"dtype": options.dtype}
    for changed, values in (SMALL_CHANGES if quick else CHANGES).items():
        along(results, base, changed, values)
    shape = {key: base[key] for key in ("layers", "hidden", "pieces", "dtype")} | {"steps": 2 if quick else 10}
    processes(results, shape | ({"hidden": 128, "pieces": 1_000} if quick else {}))
    start(results, 1 if quick else 5)
    print(results.heading())


if __name__ == "__main__":
    begin(arguments(__doc__).parse_args(), main, measured)
