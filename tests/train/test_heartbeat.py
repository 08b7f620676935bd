"""A rank that stands still is named. The processes here are small scripts: what they do is not looked at."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dudi_kit.train.heartbeat import Beat, Heartbeat, Seen, verdict

SCRIPT = """
import os, sys, time
from pathlib import Path
from dudi_kit.train.heartbeat import Heartbeat

def stalled(text):
    print(text, flush=True)
    os._exit(4)

rank, logs = int(sys.argv[1]), Path(sys.argv[2])
with Heartbeat(logs, rank, 2, timeout=2, stalled=stalled) as heartbeat:
    for step in range(1, 200):
        heartbeat.beat(step, "rollouts")
        if rank == 1 and step == 5 and "hangs" in sys.argv:
            time.sleep(60)
        heartbeat.beat(step, "backward")
        (logs / f"done-{rank}-{step}").touch()
        while not (logs / f"done-{1 - rank}-{step}").exists():  # a collective
            time.sleep(0.01)
"""


def pair(logs: Path, *words: str) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(logs), *words], stdout=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]


def ends(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=30)
    return process.returncode, said.strip()


def test_a_stopped_rank_is_named_by_the_other(tmp_path):
    first, second = pair(tmp_path)
    try:
        while not (tmp_path / "done-1-3").exists():
            time.sleep(0.01)
        second.send_signal(signal.SIGSTOP)
        code, said = ends(first)
    finally:
        second.kill()
        second.communicate()
    assert code == 4
    assert said.startswith("no process has got on for 2 seconds (training.stall_timeout). Rank 1 (step ")
    assert "without a sign of life" in said
    assert "Rank 0" not in said
    assert "--resume" in said


def test_a_rank_that_hangs_is_named_with_its_step_and_stage_by_both(tmp_path):
    both = [ends(process) for process in pair(tmp_path, "hangs")]
    assert [code for code, _ in both] == [4, 4]
    assert both[0] == both[1]
    assert "Rank 1 (step 5, rollouts): alive but behind the others" in both[0][1]


def seen(stages: int, moved: float, lived: float) -> Seen:
    return Seen(Beat(stages, 7, "backward", 1), moved, lived)


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ({0: seen(9, 0, 99), 1: seen(9, 0, 99)}, "1 (step 7, backward): alive but not getting on"),
        ({0: seen(9, 0, 99), 1: seen(8, 0, 99), 2: seen(8, 0, 99)}, "Ranks 1 (step 7, backward), 2 (step 7, backward)"),
        ({0: seen(8, 0, 99), 1: seen(9, 0, 20)}, "Rank 1 (step 7, backward): without a sign of life"),
    ],
    ids=["all stand", "some are behind", "silence counts before being behind"],
)  # fmt: skip
def test_the_verdict(ranks, said):
    assert said in verdict(ranks, now=100, timeout=90)


def test_who_tells_how_far_it_is_gets_on_and_is_not_ahead_of_the_others(tmp_path):
    one = seen(9, moved=10, lived=10)
    heartbeat = Heartbeat(tmp_path, 0, 1, timeout=60, stalled=print)
    heartbeat.beat(7, "evaluation")
    before = heartbeat._mine
    heartbeat.tell("say: 4 of 8 rows")
    assert heartbeat._mine == before._replace(stage="say: 4 of 8 rows")
    one.update(one.beat._replace(stage="say: 4 of 8 rows"), now=100)
    assert one.moved == 100


def test_who_was_stopped_itself_does_not_judge_by_that_time(tmp_path):
    one = seen(9, moved=10, lived=10)
    one.excuse(80)
    one.update(Beat(9, 7, "backward", 2), now=100)
    assert (one.moved, one.lived) == (90, 100)
    first, second = pair(tmp_path)
    try:
        while not (tmp_path / "done-1-3").exists():
            time.sleep(0.01)
        for process in (first, second):
            process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        for process in (first, second):
            process.send_signal(signal.SIGCONT)
        for process in (first, second):
            assert process.wait(timeout=30) == 0, process.communicate()
    finally:
        first.kill()
        second.kill()
        first.communicate()
        second.communicate()


def test_progress_is_no_stall(tmp_path):
    stalls: list[str] = []
    with Heartbeat(tmp_path, 0, 1, timeout=0.4, stalled=stalls.append) as heartbeat:
        for step in range(20):
            heartbeat.beat(step, "rollouts")
            time.sleep(0.05)
    assert stalls == []
    assert (tmp_path / "rank-0.beat").exists()
