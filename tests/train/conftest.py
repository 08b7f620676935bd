"""One bench for all tests of a session, and the runs that several of them read."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from dudi_kit.plan.layout import RunDir
from tests.train.bench import Bench

GREEDY = {"rollouts__temperature": "0"}
MEASURED = {"training__gradient_norms_every": "1"}
HELD_OUT = {"data__held_out": "{rows: {path: ./rows.jsonl, language: {column: language}}}"}
SAYING = "say: {data: {path: ./rows.jsonl, language: {column: language}}, metrics: [chrf], max_new_tokens: 8}"
DROPOUT = {
    "student__adapter": "{rank: 4, alpha: 64, dropout: 0.2}",
    "training__steps": "6",
    "training__learning_rate": "1e-2",
    "training__checkpoint_every": "4",
    "training__keep_checkpoints": "1",
}
SCORED = HELD_OUT | {"evaluation": f"{{tasks: {{{SAYING}}}, during_training: {{every: 2, limit: 4}}}}"}
BEST = HELD_OUT | {"evaluation": f"{{tasks: {{{SAYING}}}, during_training: {{every: 1, limit: 4, final: best}}}}"}
ALIGNED = {"teacher__model": "./foreigner", "verbalizer__vocabulary__mapping": "align"}

RUNS: dict[str, dict[str, Any]] = {
    # processes × micro-batch, ZeRO stage; the global batch is 8 rows
    "1x8": GREEDY | MEASURED,
    "1x4": {"training__micro_batch_size": "4", **GREEDY},
    "2x2-zero0": {"headless": True, "processes": 2, "training__micro_batch_size": "2", **GREEDY},
    "2x4-zero1": {"processes": 2, "deepspeed__stage": "1", "training__packing": "true", **GREEDY},
    "2x4-zero1-profiled": {
        "processes": 2,
        "profile": True,
        "deepspeed__stage": "1",
        "training__packing": "true",
        "training__checkpoint_every": "2",
        **GREEDY,
        **MEASURED,
    },
    "2x2-zero2": {
        "processes": 2,
        "deepspeed__stage": "2",
        "training__micro_batch_size": "2",
        **GREEDY,
        **MEASURED,
    },
    "1x8-zero3": {"headless": True, "deepspeed__stage": "3", **GREEDY},
    "2x2-zero3-offloaded": {
        "processes": 2,
        "deepspeed__stage": "3",
        "deepspeed__offload": "{optimizer: cpu, parameters: cpu}",
        "training__micro_batch_size": "2",
        "training__checkpoint_every": "2",
        **GREEDY,
        **MEASURED,
    },
    "1x8-sampled": {},
    "1x8-every": {"rollouts__every": "2", "rollouts__prompts_at_once": "3"},
    "2x2-every": {"processes": 2, "rollouts__every": "2", "training__micro_batch_size": "2"},
    "1x2-sampled": {"training__micro_batch_size": "2"},
    "2x4-sampled": {"headless": True, "processes": 2, "deepspeed__stage": "2"},
    # a teacher with a tokenizer of its own
    "1x8-aligned": ALIGNED,
    "2x2-zero2-aligned": {
        "headless": True,
        "processes": 2,
        "deepspeed__stage": "2",
        "training__micro_batch_size": "2",
        "training__packing": "true",
        **ALIGNED,
    },
    # a student that is cut from its teacher
    "2x4-pruned": {
        "processes": 2,
        "teacher__model": "./student",
        "student": "{init: prune, model: ./student, layers: 1}",
        "verbalizer__vocabulary__mapping": "auto",
        "training__steps": "2",
    },
    # an adapter with a copy of the student as its reference, and with its own base; and what may change nothing: a
    # teacher on disk or shared out, activations computed again
    "1x8-lora": {
        "student__adapter": "{rank: 4, alpha: 64}",
        "signals__sequence__reference": "{type: refreshed, every: 100}",
        "teacher__placement": "offload",
        "teacher__device_memory": "1MiB",
        "training__checkpoint_every": "2",
        **GREEDY,
    },
    "2x4-zero3-lora": {
        "headless": True,
        "processes": 2,
        "deepspeed__stage": "3",
        "student__adapter": "{rank: 4, alpha: 64}",
        "training__activation_checkpointing": "true",
        "teacher__placement": "sharded",
        **GREEDY,
    },
    "1x8-qlora": {
        "student__adapter": "{rank: 4, alpha: 64, quantization: nf4}",
        "training__precision": "bf16",
        "training__steps": "2",
    },
    # scored while they train, and not; dropout draws random numbers in every step
    "six-dropout": DROPOUT,
    "six-dropout-scored": DROPOUT | SCORED,
    "two-zero3-best": {
        "processes": 2,
        "deepspeed__stage": "3",
        **DROPOUT,
        **BEST,
        "training__steps": "2",  # too far, and the second one farther
        "training__learning_rate": "1",
        "training__schedule": "constant",
    },
    # for the tests of resuming
    "six-bf16": {
        "training__steps": "6",
        "training__checkpoint_every": "2",
        "training__precision": "bf16",
        "training__micro_batch_size": "4",
    },
    "six-refreshed": {
        "training__steps": "6",
        "training__checkpoint_every": "2",
        "signals__sequence__reference": "{type: refreshed, every: 3}",
        "training__deterministic": "true",
    },
}

LAUNCHED = {"1x4", "2x2-zero2"}
"""Those that begin as users' runs do, imports and all."""


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def runs(bench: Bench) -> Iterator["Runs"]:
    with ThreadPoolExecutor(2) as pool:
        yield Runs(bench, pool)
        pool.shutdown(cancel_futures=True)


class Runs:
    """Finished runs by name, two at a time; started when somebody asks for them."""

    def __init__(self, bench: Bench, pool: ThreadPoolExecutor) -> None:
        self.bench, self.pool = bench, pool
        self._futures: dict[str, Future[RunDir]] = {}

    def start(self, *names: str) -> None:
        """Ask for several at once, so that they run side by side."""
        for name in names:
            if name not in self._futures:
                train = self._launched if name in LAUNCHED else self.bench.train
                self._futures[name] = self.pool.submit(train, name, **RUNS[name])

    def _launched(self, name: str, processes: int = 1, **settings: str) -> RunDir:
        run = self.bench.plan(name, processes, **settings)
        self.bench.launch(run, processes)
        return run

    def submit(self, story: Callable[[], Any]) -> Future[Any]:
        """Something else that starts processes. It may wait for what was submitted before it."""
        return self.pool.submit(story)

    def __getitem__(self, name: str) -> RunDir:
        self.start(name)
        return self._futures[name].result()
