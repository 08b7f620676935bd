"""SIGKILL at 40 random moments of a run that saves after every step, and what lay on the disk each time.

    python -m benchmarks.faults [KILLS] [SEED]

Each life of the run is killed at a moment drawn from the time it takes to start, or from the two seconds after it went
on. After every kill the newest checkpoint must be whole, and none may have become damaged; when the run is done, its
weights and metrics must equal, bit for bit, those of the same run that nobody killed. Ends with 1 if they do not.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dudi_kit.plan.layout import RunDir
from dudi_kit.train import checkpoints
from dudi_kit.train.heartbeat import Heartbeat
from dudi_kit.train.worker import main as work
from tests.train.bench import ENVIRONMENT, Bench, metrics, weights

ROOT = Path(__file__).parents[1]
STEPS = 500
SETTINGS = {
    "training__steps": str(STEPS),
    "training__checkpoint_every": "1",
    "training__keep_checkpoints": "2",
    "training__micro_batch_size": "4",
    "signals__sequence__reference": "{type: refreshed, every: 3}",
}
OF_STARTS = 5
"""One in so many kills falls while the process starts."""

START_SECONDS, TRAINING_SECONDS = 6.0, 2.0


class Kill(NamedTuple):
    """What was there when a life ended."""

    number: int
    step: int
    """That the life was in."""

    stage: str
    newest: int
    """Step of the newest whole checkpoint."""

    partial: str
    """The checkpoint that was being written, and what of it was there."""


def live(run: RunDir) -> int:
    """A training process that writes down every stage it enters, so that a killed one can be asked."""
    real = Heartbeat.beat

    def beat(self: Heartbeat, step: int, stage: str) -> None:
        (run.logs / "stage").write_text(f"{step} {stage}")
        real(self, step, stage)

    Heartbeat.beat = beat  # type: ignore[method-assign]
    return work([str(run.path), "--resume"])


def start(run: RunDir) -> "subprocess.Popen[bytes]":
    """A life of the run."""
    log = run.path.with_suffix(".log").open("ab")
    (run.logs / "stage").unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks.faults", "--live", str(run.path)]
    return subprocess.Popen(
        words, env=ENVIRONMENT, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def kill(run: RunDir, number: int, moments: random.Random) -> Kill | None:
    """Start a life and kill it; None where it was done before."""
    process, stage = start(run), run.logs / "stage"
    if number % OF_STARTS == 0:
        until = time.monotonic() + moments.uniform(0, START_SECONDS)
    else:
        while process.poll() is None and (not stage.exists() or not stage.read_text()[:1].strip("0")):
            time.sleep(0.001)
        until = time.monotonic() + moments.uniform(0, TRAINING_SECONDS)
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.0005)
    process.kill()
    if process.wait() == 0:
        return None
    found, skipped = checkpoints.latest(run)
    assert not skipped, skipped
    assert process.returncode == -9, run.path.with_suffix(".log").read_text()[-2000:]
    step, _, name = (stage.read_text() if stage.exists() else "").partition(" ")
    return Kill(number, int(step or 0), name or "starting", found.step if found else 0, _partial(run))


def _partial(run: RunDir) -> str:
    names = []
    for folder in run.checkpoints.glob(".step-*.partial"):
        files = [file.name for file in folder.rglob("*") if file.is_file()]
        names.append(f"{folder.name}: {len(files)} files{', manifest' if checkpoints.MANIFEST in files else ''}")
    return "; ".join(names) or "-"


def report(killed: Kill) -> None:
    """A line of the table."""
    print(f"| {killed.number} | {killed.step} | {killed.stage} | {killed.newest} | {killed.partial} |", flush=True)


def same(run: RunDir, other: RunDir) -> bool:
    """Weights bit for bit, and every line of the metrics."""
    ours, theirs = weights(run), weights(other)
    equal = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    lines: list[dict[str, Any]] = metrics(run)
    return equal and lines == metrics(other)


def main(kills: int, seed: int) -> int:
    """0 where all held."""
    moments, began = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        run, other = bench.plan("killed", **SETTINGS), bench.plan("uninterrupted", **SETTINGS)
        run.logs.mkdir(exist_ok=True)
        print("| kill | in step | stage | newest whole checkpoint | beside it |\n| ---: | ---: | --- | ---: | --- |")
        newest = done = 0
        for number in range(1, kills + 1):
            killed = kill(run, number, moments)
            if killed is None:
                break
            report(killed)
            assert killed.newest >= newest, "a checkpoint was lost"
            newest, done = killed.newest, number
        if not run.complete():
            assert start(run).wait() == 0, run.path.with_suffix(".log").read_text()[-2000:]
        bench.start(other).finish()
        equal = same(run, other)
        minutes = (time.monotonic() - began) / 60
        print(f"\n{done} kills, {STEPS} steps, {minutes:.0f} minutes: equal to the run that nobody killed: {equal}")
    return 0 if equal else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--live"]:
        sys.exit(live(RunDir(Path(sys.argv[2]))))
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(numbers + [40, 5][len(numbers) :])))
