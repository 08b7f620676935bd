"""A training process that notes which kept answers it announces and which it reads, step by step.

Started as `python -m tests.train.ahead RUN`. Prints a JSON list: of each step the keys that were `expected` in it, and
those that were `read` in it, of the teacher's store.
"""

import json
import sys
from collections.abc import Iterable
from typing import Any

from dudi_kit.models.cache.store import Store
from dudi_kit.pipeline.during import make_scorer
from dudi_kit.train import loop, worker

STEPS: list[dict[str, list[str]]] = []
step, expect, get = loop.Loop._step, Store.expect, Store.__getitem__


def noted_step(self: loop.Loop, number: int) -> None:
    STEPS.append({"expected": [], "read": []})
    step(self, number)


def noted_expect(self: Store, keys: Iterable[bytes]) -> None:
    keys = list(keys)
    STEPS[-1]["expected"] += [key.hex() for key in keys]
    expect(self, keys)


def noted_get(self: Store, key: bytes) -> Any:
    if STEPS and self.folder.name.startswith("teacher-"):
        STEPS[-1]["read"].append(key.hex())
    return get(self, key)


if __name__ == "__main__":
    loop.Loop._step, Store.expect, Store.__getitem__ = noted_step, noted_expect, noted_get  # type: ignore[method-assign]
    code = worker.main(sys.argv[1:], make_scorer)
    sys.stdout.write(json.dumps(STEPS) + "\n")
    sys.exit(code)
