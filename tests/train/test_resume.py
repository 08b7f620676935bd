"""A run that was killed goes on as if it never was: bit for bit, from whole checkpoints only.

Six steps with a checkpoint after every second one, sampled rollouts, fp32 and bf16, SIGKILL to all processes, SIGTERM
in generation, in backward and in saving. The
stories are told side by side, as far as the processors reach; the tests look at what is left.
"""

import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dudi_kit.cli import app
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.models.loading import load_model
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

    seconds: float = 0.0
    """From the blow to the end."""


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
        self.one_by_two: Future[Ending] = runs.submit(self._one_by_two)
        self.asked: Future[list[Ending]] = runs.submit(self._asked)
        self.rank_killed: Future[list[Ending]] = runs.submit(self._rank_killed)

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
        return Ending(run, self.bench.launch(run, 2, resume=True))

    def _damaged(self) -> Ending:
        run = self.copy("killed-damaged")
        file = run.checkpoints / "step-4" / "state" / "exp_avg.safetensors"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        return Ending(run, self.bench.start(run, resume=True).finish())

    def _one_by_two(self) -> Ending:
        """Planned anew for two processes, as `dudi-kit run --resume --processes 2` does."""
        self.copy("one-by-two")
        run = self.bench.plan("one-by-two", 2, **RUNS[REFRESHED])
        return Ending(run, self.bench.start(run, 2, resume=True).finish())

    def _asked(self) -> list[Ending]:
        """Four lives of one run, of which three are asked to stop; no checkpoint would be written otherwise."""
        settings = RUNS[BF16] | {"training__checkpoint_every": "5"}
        run = self.bench.plan("asked", **settings)
        lives = []
        # Counted in the steps of a life; a stop in a step that is not done goes on with that step.
        for moment, step in [("generation", 2), ("backward", 3), ("save", 5)]:
            life = self.bench.asked_to_stop(run, moment, step, resume=bool(lives))
            lives.append(Ending(run, code=life.wait(), said=life.said))
        return [*lives, Ending(run, self.bench.start(run, resume=True).finish())]

    def _rank_killed(self) -> list[Ending]:
        """`dudi-kit` with two processes, one of which is killed; then one process goes on alone."""
        words = self.bench.words("train", "rank-killed", **RUNS[TWO], training__checkpoint_every="2")
        run = RunDir(self.bench.output / "rank-killed")
        log = self.bench.folder / "rank-killed.log"
        with log.open("w") as file, subprocess.Popen(
            [sys.executable, "-m", "dudi_kit.cli", *words], env=ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT
        ) as command:  # fmt: skip
            give_up = time.monotonic() + 300
            while not (run.checkpoints / "step-2").exists() and command.poll() is None:
                assert time.monotonic() < give_up, log.read_text()
                time.sleep(0.002)
            for child in psutil.Process(command.pid).children():
                if child.environ().get("RANK") == "1":
                    child.kill()
            killed = time.monotonic()
            code = command.wait(timeout=60)
        first = Ending(run, " ".join(log.read_text().split()), code, seconds=time.monotonic() - killed)
        run = self.bench.plan("rank-killed", **RUNS[TWO] | {"processes": 1}, training__checkpoint_every="2")
        return [first, Ending(run, self.bench.start(run, resume=True).finish())]

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
    assert "Setting accelerator" not in ending.said  # DeepSpeed, if it looks for a GPU first
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
    assert "checkpoint passed over: step-4: state/exp_avg.safetensors is damaged" in ending.said
    assert "resuming after step 2" in ending.said
    assert_same_as_uninterrupted(ending.run, runs[REFRESHED])


def test_two_processes_with_zero_2_resume_bit_for_bit(runs, stories):
    ending = stories.two.result()
    assert "resuming after step 2" in ending.said
    assert_same_as_uninterrupted(ending.run, runs[TWO])


def test_asked_to_stop_in_generation_backward_or_saving_a_run_saves_and_goes_on_bit_for_bit(runs, stories):
    generation, backward, save, end = stories.asked.result()
    for life, step, of in [(generation, 1, "in generation"), (backward, 3, "in backward"), (save, 5, "while saving")]:
        assert life.code == 130, (of, life.said)
        assert f"stopped by SIGTERM; saved after step {step} of 6 in {life.run.checkpoints}/step-{step}" in life.said, (
            of
        )
        assert "Traceback" not in life.said
    assert "resuming after step 5" in end.said
    assert_same_as_uninterrupted(end.run, runs[BF16])


def test_a_rank_that_is_killed_ends_the_run_with_its_name_within_30_seconds(stories):
    first, _ = stories.rank_killed.result()
    assert first.code == 4, first.said
    assert first.seconds < 30
    assert "rank 1 was killed by SIGKILL" in first.said
    assert "go on from the last checkpoint with --resume" in first.said
    assert "Traceback" not in first.said


def test_another_number_of_processes_goes_on_with_the_same_loss(runs, stories):
    _, one = stories.rank_killed.result()
    two = stories.one_by_two.result()
    assert "saved by 2 processes and resumed by 1" in one.said
    assert "saved by 1 processes and resumed by 2" in two.said
    for ending, uninterrupted in [(one, runs[TWO]), (two, runs[REFRESHED])]:
        losses = [[line["loss"] for line in metrics(run)] for run in (ending.run, uninterrupted)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_checkpoint_is_a_transformers_folder_at_once(stories):
    run = stories.killed.result()
    folder = str(run.checkpoints / "step-4")
    model = load_model(folder, who="student", dtype="fp32")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.chat_template
    assert model.generation_config.eos_token_id
    with safe_open(run.checkpoints / "step-4" / "model.safetensors", framework="pt") as saved:
        assert all(torch.equal(saved.get_tensor(name), model.state_dict()[name]) for name in saved.keys())  # noqa: SIM118
    pickles = [
        file for file in run.checkpoints.rglob("*") if file.suffix not in {".json", ".safetensors", ".jinja", ""}
    ]
    assert pickles == []
    assert not (run.checkpoints / "step-4" / "state" / "weights.safetensors").exists(), "fp32 weights are there once"


def test_weights_in_bf16_have_their_fp32_ones_beside_them(runs):
    folder = runs[BF16].checkpoints / "step-4"
    rough, fine = load_file(folder / "model.safetensors"), load_file(folder / "state" / "weights.safetensors")
    assert {tensor.dtype for tensor in rough.values()} == {torch.bfloat16}
    assert all(torch.equal(fine[name].bfloat16(), tensor) for name, tensor in rough.items())


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
