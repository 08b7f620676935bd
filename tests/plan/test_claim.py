import os
import threading
from pathlib import Path

import pytest

from dudi_kit.errors import RunDirectoryError
from dudi_kit.plan.claim import exclusive, sole_trainer
from dudi_kit.plan.layout import RunDir


def test_a_second_builder_of_a_stage_waits_for_the_first(tmp_path: Path):
    run, order = RunDir(tmp_path), []
    waits = threading.Event()

    def second():
        with exclusive(run, waiting=waits.set):
            order.append("second")

    with exclusive(run, waiting=lambda: order.append("the first had to wait")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(timeout=10)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_an_orphaned_training_process_keeps_others_out_and_is_named(tmp_path: Path):
    run = RunDir(tmp_path)
    with (
        sole_trainer(run),
        pytest.raises(RunDirectoryError, match=f"process {os.getpid()} is still training"),
        sole_trainer(run),
    ):
        pass
    with sole_trainer(run):
        pass
