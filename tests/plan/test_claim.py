import threading
from pathlib import Path

from dudi_kit.plan.claim import exclusive
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
