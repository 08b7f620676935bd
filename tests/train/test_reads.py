"""What a step reads off the device, and how often it samples."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.train.bench import ENVIRONMENT, Bench

NEW = 12


@pytest.fixture(scope="module")
def counted(bench: Bench) -> dict[str, Any]:
    """A step of 8 rows in four micro-batches that is not logged."""
    settings = {"steps": "3", "micro_batch_size": "2", "log_every": "100"}
    run = bench.plan("counted", **{f"training__{name}": value for name, value in settings.items()})
    words = [sys.executable, "-m", "tests.train.counted", str(run.path)]
    ended = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


def test_one_sampling_serves_all_micro_batches_of_a_step(counted):
    assert counted["samplings"] == [8]
    assert counted["passes"] == 4


def test_a_step_waits_for_the_device_only_to_see_whether_it_failed(counted):
    """Twice after the last micro-batch: for the gradient norm, and for the loss. Nothing in between reads anything but
    sampling, for each token: whether some rows are open still."""
    reads = dict(counted["reads"])
    sampling = {name: times for name, times in reads.items() if name.startswith("generation.")}
    rest = {name: times for name, times in reads.items() if name not in sampling}
    assert rest == {"engine._plain_gradient_norm": 1, "loop._require_finite": 1}
    assert sampling["generation._decode"] <= NEW
    assert sampling["generation.continue_prompts"] <= 3  # by `generate`, before the first token
