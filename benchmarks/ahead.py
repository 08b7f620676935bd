"""Kept answers that lie on the disk only: what a step waits for them, read when they are needed and announced before.

    python -m benchmarks.ahead [--folder DIR]      a minute; writes 300 MB into DIR, a temporary folder by default

A store of random answers is forgotten by the system's page cache, then read as a run reads it: 8 rows in a step, in
random order, with 50 ms of arithmetic on every core after each step; the next step's answers are announced before it,
or not. `warm` is the same store when all of it is in memory; on a file system that forgets nothing, as tmpfs, all three
are the same. A row of 256 tokens takes 1 MB as hidden states of a teacher 2,048 wide, and 26 kB as `top_k` with its
defaults. Medians of five by turns.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.measure import table
from dudi_kit.models.cache.store import Store, key_of

ROWS, A_STEP, WORK, ROUNDS = 256, 8, 0.05, 5
SIZES = {"hidden, 1 MB a row": 2**20, "top_k, 26 kB a row": 26_000}
WAYS = ("cold", "announced", "warm")


def filled(folder: Path, size: int) -> Store:
    """A store of random answers of so many bytes."""
    store, random = Store(folder, {"bytes": size}), np.random.default_rng(0)
    for row in range(ROWS):
        store.put(key_of([row]), random.bytes(size))
    store.flush()
    return store


def forget(folder: Path) -> None:
    """Have the system drop these files from memory."""
    for path in folder.glob("*.shard"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def work() -> None:
    """What a step does besides, for a while."""
    until, matrix = time.perf_counter() + WORK, torch.ones(512, 512)
    while time.perf_counter() < until:
        matrix @ matrix


def read(folder: Path, size: int, way: str, seed: int) -> float:
    """Milliseconds that a row's answer took, announcing included. seed: of the order."""
    if way != "warm":
        forget(folder)
    store, taken = Store(folder, {"bytes": size}), 0.0
    order = np.random.default_rng(seed).permutation(ROWS).reshape(-1, A_STEP)
    steps = [[key_of([int(row)]) for row in rows] for rows in order]
    for number, keys in enumerate(steps):
        began = time.perf_counter()
        if way == "announced" and number + 1 < len(steps):
            store.expect(steps[number + 1])
        for key in keys:
            store[key]
        taken += time.perf_counter() - began
        work()
    return 1e3 * taken / ROWS


def main(parent: Path | None) -> None:
    rows = []
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            filled(Path(folder), size)
            rounds = [{way: read(Path(folder), size, way, turn) for way in WAYS} for turn in range(ROUNDS)]
        found = [median(each[way] for each in rounds) for way in WAYS]
        rows.append([name, *(f"{milliseconds:.2f}" for milliseconds in found)])
    print(table(["kept as", *(f"{way}, ms a row" for way in WAYS)], rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="on the disk that is meant")
    main(parser.parse_args().folder)
