"""How training processes end, and what the one who started them says about it. The processes here are small scripts."""

import signal
import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from dudi_kit.errors import DataError, EnvironmentLack, Exit, Interrupted, WorkerFailed
from dudi_kit.plan.engine import launch_command
from dudi_kit.plan.layout import RunDir
from dudi_kit.train import launch, worker
from dudi_kit.train.launch import TrainingStopped, start_training


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.logs.mkdir(parents=True)
    return run


def start(monkeypatch: pytest.MonkeyPatch, run: RunDir, script: str) -> None:
    """Start a script in place of the workers; `logs` is the folder that they report to."""
    code = f"import os, pathlib, signal, sys, time\nlogs = pathlib.Path({str(run.logs)!r})\n{script}"
    monkeypatch.setattr(launch, "launch_command", lambda *_, **__: ["-c", code])
    start_training(run, 1, resume=False)


# --- the one who starts


def test_a_good_end_is_silent(monkeypatch, run):
    start(monkeypatch, run, "sys.exit(0)")


def test_the_exit_code_is_that_of_the_process_and_not_of_torchrun(monkeypatch, run):
    with pytest.raises(TrainingStopped, match=r"rank 1: no space .* --resume") as caught:
        start(monkeypatch, run, "(logs / 'rank-1.log').write_text('4\\nno space for it; --resume'); sys.exit(1)")
    assert caught.value.exit_code is Exit.ENVIRONMENT


def test_a_process_that_stumbled_over_the_loss_of_its_peer_is_not_the_reason(monkeypatch, run):
    script = (
        "(logs / 'rank-0.log').write_text('3\\nTraceback: Connection closed by peer')\n"
        "(logs / 'rank-1.log').write_text('4\\nno space')\nsys.exit(1)"
    )
    with pytest.raises(TrainingStopped) as caught:
        start(monkeypatch, run, script)
    assert caught.value.exit_code is Exit.ENVIRONMENT
    assert "Connection closed" not in str(caught.value)


def test_a_bug_alone_is_a_bug(monkeypatch, run):
    with pytest.raises(TrainingStopped, match="Traceback") as caught:
        start(monkeypatch, run, "(logs / 'rank-0.log').write_text('3\\nTraceback of it'); sys.exit(3)")
    assert caught.value.exit_code is Exit.BUG


def test_a_report_that_a_full_disk_cut_counts_as_a_lack_of_the_machine(monkeypatch, run):
    with pytest.raises(TrainingStopped) as caught:
        start(monkeypatch, run, "(logs / 'rank-0.log').write_text(''); sys.exit(4)")
    assert caught.value.exit_code is Exit.ENVIRONMENT


def test_a_process_that_is_killed_is_named_with_its_signal_and_the_way_on(monkeypatch, run):
    with pytest.raises(WorkerFailed, match=r"SIGKILL.*there is no checkpoint yet") as caught:
        start(monkeypatch, run, "os.kill(os.getpid(), signal.SIGKILL)")
    assert caught.value.exit_code is Exit.ENVIRONMENT
    (run.checkpoints / "step-2").mkdir(parents=True)
    with pytest.raises(WorkerFailed, match=r"SIGKILL.*--resume"):
        start(monkeypatch, run, "os.kill(os.getpid(), signal.SIGKILL)")


def test_sigterm_ends_the_training_processes_too(monkeypatch, run):
    script = (
        "signal.signal(signal.SIGINT, lambda *_: ((logs / 'told').touch(), sys.exit(130)))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)"
    )
    with pytest.raises(Interrupted, match="start again"):
        start(monkeypatch, run, script)
    assert (run.logs / "told").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_reports_of_an_earlier_run_are_gone(monkeypatch, run):
    (run.logs / "rank-0.log").write_text("1\nan old story")
    with pytest.raises(WorkerFailed) as caught:
        start(monkeypatch, run, "sys.exit(5)")
    assert "old story" not in str(caught.value)


def test_ctrl_c_is_passed_on_waited_for_and_named(monkeypatch, run):
    waited: list[int] = []
    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs have it ignored
    real = subprocess.Popen.wait

    def wait(self: Any, *arguments: Any, **options: Any) -> int:
        if not waited:
            waited.append(0)
            while not (run.logs / "ready").exists():
                pass
            raise KeyboardInterrupt
        code = real(self, *arguments, **options)
        waited.append(code)
        return code

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    script = "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n(logs / 'ready').touch()\ntime.sleep(60)"
    with pytest.raises(Interrupted, match="start again"):
        start(monkeypatch, run, script)
    assert waited[1] == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_one_process_needs_no_launcher_and_two_get_torchrun():
    assert launch_command(1, "run", resume=True) == ["-m", "dudi_kit.train", "run", "--resume"]
    two = launch_command(2, "run", resume=False)
    assert two[:2] == ["-m", "torch.distributed.run"]
    assert "--nproc-per-node=2" in two
    assert two[-3:] == ["-m", "dudi_kit.train", "run"]


# --- the process itself


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("row 3 has no response"), Exit.INVALID),
        (EnvironmentLack("no space"), Exit.ENVIRONMENT),
        (ZeroDivisionError("ours"), Exit.BUG),
    ],
)
def test_a_process_says_why_it_ends_on_stderr_and_in_its_log(monkeypatch, run, capsys, error, code):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(worker, "train", fail)
    monkeypatch.setenv("RANK", "1")
    assert worker.main([str(run.path)]) == code
    first, _, text = (run.logs / "rank-1.log").read_text().partition("\n")
    assert int(first) == code
    assert text.strip()
    assert text.strip() in capsys.readouterr().err
    assert str(error) in text


def test_an_interrupted_process_leaves_the_last_word_to_who_started_it(monkeypatch, run, capsys):
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "train", fail)
    assert worker.main([str(run.path)]) == Exit.INTERRUPTED
    assert capsys.readouterr().err == ""


def test_where_the_log_can_not_be_written_stderr_has_the_reason(monkeypatch, tmp_path, capsys):
    def fail(*_: Any, **__: Any) -> None:
        raise EnvironmentLack("no space")

    monkeypatch.setattr(worker, "train", fail)
    (tmp_path / "logs").write_text("a file in the way")
    assert worker.main([str(tmp_path)]) == Exit.ENVIRONMENT
    assert "no space" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_at_the_end_leaves_no_final_model(run, error):
    class Model(torch.nn.Module):
        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"half")
            raise error

    accelerator = SimpleNamespace(wait_for_everyone=lambda: None, is_main_process=True)
    student = SimpleNamespace(whole=lambda: nullcontext(Model()))
    loop: Any = SimpleNamespace(accelerator=accelerator, run=run, student=student)
    with pytest.raises(EnvironmentLack, match=r"can't write .*final: .*No space left on device.*--resume"):
        worker.save_final(loop)
    assert not run.complete()
