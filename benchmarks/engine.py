"""One training under every way of the engine, and once without it: do they learn the same?

    python -m benchmarks.engine          every way, 20 steps, some minutes; prints the tables of benchmarks/engine.md
    python -m benchmarks.engine zero3    those whose name begins so

Two layers, all signals, greedy samples, fp32, on the CPU. Each way is held against a plain loop with torch's AdamW,
one row at a time (`tests/train/plain.py`). Greedy samples make it strict: one token that flips changes the loss.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.train.bench import Bench, metrics, weights  # noqa: E402 – found on the path above
from tests.train.plain import Trained, train_plainly  # noqa: E402

STEPS = 20
COMMON = {"rollouts__temperature": "0", "training__steps": str(STEPS)}


class Way(NamedTuple):
    """A way to train."""

    name: str
    stage: int
    offload: str = "{}"
    processes: int = 1
    micro: int = 8

    def settings(self) -> dict[str, Any]:
        """Of the recipe."""
        return COMMON | {
            "deepspeed__stage": str(self.stage),
            "deepspeed__offload": self.offload,
            "training__micro_batch_size": str(self.micro),
        }


OPTIMIZER, PARAMETERS = "{optimizer: cpu}", "{parameters: cpu}"
BOTH = "{optimizer: cpu, parameters: cpu}"
STAGES = (
    ("zero0", 0, "{}"),
    ("zero1", 1, "{}"),
    ("zero2", 2, "{}"),
    ("zero3", 3, "{}"),
    ("zero1 optimizer offloaded", 1, OPTIMIZER),
    ("zero2 optimizer offloaded", 2, OPTIMIZER),
    ("zero3 optimizer offloaded", 3, OPTIMIZER),
    ("zero3 parameters offloaded", 3, PARAMETERS),
    ("zero3 both offloaded", 3, BOTH),
)
WAYS = [Way(*way) for way in STAGES] + [Way(*way, processes=2, micro=2) for way in STAGES]


def run(way: Way, bench: Bench) -> tuple[Trained, float]:
    """What it learned, and the seconds that all of it took."""
    began = time.monotonic()
    directory = bench.train(f"{way.name} {way.processes}".replace(" ", "-"), way.processes, **way.settings())
    lines = metrics(directory)
    learned = Trained([line["loss"] for line in lines], [line["grad_norm"] for line in lines], weights(directory))
    return learned, time.monotonic() - began


def relative(ours: list[float], theirs: list[float]) -> float:
    """The largest deviation of a step."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def main(prefixes: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        plain = train_plainly(bench.plan("plain", **COMMON))
        print(f"plain torch, {STEPS} steps: loss {plain.losses[0]:.4f} → {plain.losses[-1]:.4f}\n")
        print("| engine | processes × micro-batch | loss | gradient norm | final weights | seconds |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        for way in WAYS:
            if prefixes and not way.name.startswith(tuple(prefixes)):
                continue
            learned, seconds = run(way, bench)
            moved = max(float((learned.weights[name] - w).abs().max()) for name, w in plain.weights.items())
            print(
                f"| {way.name} | {way.processes} × {way.micro} | {relative(learned.losses, plain.losses):.1e} | "
                f"{relative(learned.norms, plain.norms):.1e} | {moved:.1e} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
