"""The engine's state fits every ZeRO stage and number of processes; on the same layout it goes on bit for bit.

The trainings run in `layouts.py`, in one process and in two, since each needs a process group of its own.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.train.bench import ENVIRONMENT

MODULE = ["-m", "tests.train.layouts"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("layouts")
    for words in (MODULE, TORCHRUN + MODULE):
        done = subprocess.run(
            [sys.executable, *words, str(folder)], env=ENVIRONMENT | {"DS_ACCELERATOR": "cpu"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
    ends: dict[str, dict[str, Any]] = json.loads((folder / "found.json").read_text())
    return ends


def test_the_same_layout_goes_on_bit_for_bit(found: dict[str, dict[str, Any]]) -> None:
    same = {name: end for name, end in found.items() if len(set(name.split(" -> "))) == 1}
    assert len(same) == 7, "four stages in fp32, three in bf16"
    assert [name for name, end in same.items() if not end["equal"]] == []


def test_other_processes_and_another_stage_go_on_with_the_same_loss(found: dict[str, dict[str, Any]]) -> None:
    others = {name: end for name, end in found.items() if len(set(name.split(" -> "))) == 2}
    assert {"2-fp32-of-1 -> 2-fp32-of-2", "3-fp32-of-1 -> 3-fp32-of-2", "2-fp32-of-2 -> 3-fp32-of-2"} <= set(others)
    assert {name: end["loss"] for name, end in others.items() if end["loss"] > 1e-5} == {}
