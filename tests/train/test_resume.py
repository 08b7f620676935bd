"""A run that was killed goes on as if it never was: bit for bit, from whole checkpoints only.

Six steps with a checkpoint after every second one, sampled rollouts, fp32 and bf16, SIGKILL to all processes. The
stories are told side by side, as far as the processors reach; the tests look at what is left.
"""

import resource
import shutil
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from dudi_kit.cli import app
from dudi_kit.plan.layout import RunDir
from tests.train.bench import ENVIRONMENT, Bench, metrics, weights
from tests.train.conftest import RUNS, Runs

REFRESHED, BF16, TWO = "six-refreshed", "six-bf16", "2x2-zero2"


@dataclass
class Ending:
    """What a resumed run left."""

    run: RunDir
    said: str
    code: int = 0
    before: dict[Path, bytes] | None = None
    """Content of the files that the run found."""


class Stories:
    """Runs that are killed, damaged and resumed."""

    def __init__(self, bench: Bench, runs: Runs) -> None:
        self.bench = bench
        runs.start(REFRESHED, BF16, TWO)
        self.killed = runs.submit(lambda: bench.killed("killed", "step-4", **RUNS[REFRESHED]))
        self.while_saving: Future[Ending] = runs.submit(self._while_saving)
        self.two: Future[Ending] = runs.submit(self._two)
        self.resumed: Future[Ending] = runs.submit(self._resumed)
        self.damaged: Future[Ending] = runs.submit(self._damaged)
        self.disk_full: Future[Ending] = runs.submit(self._disk_full)

    def copy(self, name: str, *, without_newest: bool = False) -> RunDir:
        """The killed run, in a folder of its own."""
        run = copy_of(self.killed.result(), name)
        if without_newest:
            shutil.rmtree(run.checkpoints / "step-4")
        return run

    def _resumed(self) -> Ending:
        run = self.copy("killed.resumed")
        return Ending(run, self.bench.start(run, resume=True).finish())

    def _while_saving(self) -> Ending:
        run = self.bench.killed("killed-while-saving", ".step-4.partial", **RUNS[BF16])
        assert not (run.checkpoints / "step-4").exists()
        return Ending(run, self.bench.start(run, resume=True).finish())

    def _two(self) -> Ending:
        run = self.bench.killed("killed-two", "step-2", **RUNS[TWO], training__checkpoint_every="2")
        return Ending(run, self.bench.start(run, 2, resume=True).finish())

    def _damaged(self) -> Ending:
        run = self.copy("killed-damaged")
        file = next((run.checkpoints / "step-4").rglob("*model_states.pt"))
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        return Ending(run, self.bench.start(run, resume=True).finish())

    def _disk_full(self) -> Ending:
        """A limit on the size of files stands for the full disk: it stops a large file, and lets small ones pass."""
        run = self.copy("disk-full", without_newest=True)
        before = files(run.checkpoints)
        largest = max(len(content) for content in before.values())

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))

        words = [*self.bench.words("train", "disk-full", **RUNS[REFRESHED]), "--resume"]
        ended = subprocess.run(
            [sys.executable, "-m", "dudi_kit.cli", *words],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
            preexec_fn=limit,
        )  # fmt: skip
        return Ending(run, " ".join(ended.stdout.split()), ended.returncode, before)


@pytest.fixture(scope="module")
def stories(bench: Bench, runs: Runs) -> Stories:
    return Stories(bench, runs)


def copy_of(run: RunDir, name: str) -> RunDir:
    return RunDir(Path(shutil.copytree(run.path, run.path.with_name(name))))


def files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def command(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[Any, str]:
    """Exit code and output of a command that starts no training, in this process."""
    code = app(words, standalone_mode=False)
    said = capsys.readouterr()
    return code or 0, " ".join((said.out + said.err).split())


def assert_same_as_uninterrupted(run: RunDir, other: RunDir) -> None:
    assert metrics(run) == metrics(other)
    assert [line["step"] for line in metrics(run)] == list(range(1, len(metrics(other)) + 1))
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []


def test_a_killed_run_resumed_equals_an_uninterrupted_one_with_a_refreshed_reference(runs, stories):
    # the reference after step 4 is the student after step 3, which is in no other file of the checkpoint
    ending = stories.resumed.result()
    assert "resuming after step 4" in ending.said
    assert_same_as_uninterrupted(ending.run, runs[REFRESHED])


def test_a_refreshed_reference_is_the_student_of_that_step(runs, stories):
    margins = [line["signals"]["sequence"]["metrics"]["margin"]["all"] for line in metrics(runs[REFRESHED])]
    assert [abs(margin) < 1e-4 for margin in margins] == [True, False, False, True, False, False]


def test_a_kill_in_the_middle_of_a_checkpoint_leaves_a_partial_one_that_is_ignored_in_bf16(runs, stories):
    ending = stories.while_saving.result()
    assert "resuming after step 2" in ending.said
    assert_same_as_uninterrupted(ending.run, runs[BF16])
    assert [folder.name for folder in sorted(ending.run.checkpoints.iterdir())] == ["step-2", "step-4"]


def test_a_damaged_newest_checkpoint_is_passed_over_by_name_and_reason(runs, stories):
    ending = stories.damaged.result()
    assert "checkpoint passed over: step-4: state/pytorch_model/mp_rank_00_model_states.pt is damaged" in ending.said
    assert "resuming after step 2" in ending.said
    assert_same_as_uninterrupted(ending.run, runs[REFRESHED])


def test_two_processes_with_zero_2_resume_bit_for_bit(runs, stories):
    ending = stories.two.result()
    assert "resuming after step 2" in ending.said
    assert_same_as_uninterrupted(ending.run, runs[TWO])


def test_a_full_disk_while_saving_ends_with_code_4_and_leaves_earlier_checkpoints_whole(stories):
    ending = stories.disk_full.result()
    assert ending.code == 4, ending.said
    assert "can't write checkpoint" in ending.said
    assert "step-4" in ending.said
    assert "--resume" in ending.said
    assert "Traceback" not in ending.said
    run = ending.run
    assert {
        file: content for file, content in files(run.checkpoints).items() if "step-2" in file.parts
    } == ending.before
    assert [folder.name for folder in run.checkpoints.glob("step-*")] == ["step-2"]
    assert not run.final.exists()


def test_an_unfinished_run_is_not_started_over_without_being_asked(stories, capsys):
    run = stories.copy("not-asked")
    before = files(run.path)
    code, said = command(capsys, stories.bench.words("train", "not-asked", **RUNS[REFRESHED]))
    assert code == 1
    assert "holds an unfinished run" in said
    assert "--resume" in said
    assert files(run.path) == before


def test_resuming_a_complete_run_reuses_it(runs, stories, capsys):
    run = copy_of(runs[REFRESHED], "complete")
    before = files(run.path)
    code, said = command(capsys, [*stories.bench.words("train", "complete", **RUNS[REFRESHED]), "--resume"])
    assert code == 0
    assert "trained already, reused" in said
    assert files(run.path) == before
