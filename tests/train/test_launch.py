"""How training processes end, and what the one who started them says about it. The processes here are small scripts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors import SafetensorError

from dudi_kit.errors import DataError, EnvironmentLack, Exit, Interrupted, WorkerFailed
from dudi_kit.plan.engine import launch_command
from dudi_kit.plan.layout import RunDir
from dudi_kit.train import launch, processes, stopping, worker
from dudi_kit.train.launch import TrainingStopped, start_training
from dudi_kit.train.stopping import StopRequests


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.logs.mkdir(parents=True)
    return run


def start(monkeypatch: pytest.MonkeyPatch, run: RunDir, script: str, processes: int = 1) -> None:
    """Start a script in place of the workers; `logs` is the folder that they report to, `rank` who they are."""
    code = (
        "import os, pathlib, signal, sys, time\n"
        f"logs, rank = pathlib.Path({str(run.logs)!r}), int(os.environ['RANK'])\n{script}"
    )
    monkeypatch.setattr(launch, "worker_command", lambda *_, **__: ["-c", code])
    start_training(run, processes, resume=False)


@contextmanager
def in_a_process_of_its_own(run: RunDir, script: str, processes: int = 1) -> Iterator[subprocess.Popen[str]]:
    """The launcher in place of `dudi-kit`, to be signalled."""
    code = (
        "import os, pathlib, signal, sys, time\n"
        f"logs, rank = pathlib.Path({str(run.logs)!r}), int(os.environ['RANK'])\n{script}"
    )
    launcher = (
        "from dudi_kit.train.processes import run_together\n"
        f"ended, asked = run_together(['-c', {code!r}], {processes})\n"
        "print(sorted((end.rank, end.code) for end in ended), asked and asked.name, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(true: Callable[[], Any], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


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


def test_a_rank_that_is_killed_is_named_with_its_signal_and_the_way_on(monkeypatch, run):
    with pytest.raises(WorkerFailed, match=r"rank 0 was killed by SIGKILL.*there is no checkpoint yet") as caught:
        start(monkeypatch, run, "os.kill(os.getpid(), signal.SIGKILL)")
    assert caught.value.exit_code is Exit.ENVIRONMENT
    (run.checkpoints / "step-2").mkdir(parents=True)
    stumbles = (
        "if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"(logs / 'rank-0.log').write_text('4\\n{launch.LOST}: Connection closed by peer'); sys.exit(4)"
    )
    with pytest.raises(WorkerFailed, match=r"rank 1 was killed by SIGKILL.*--resume"):
        start(monkeypatch, run, stumbles, processes=2)


def test_who_does_not_end_by_itself_when_another_has_failed_is_killed(monkeypatch, run):
    monkeypatch.setattr(processes, "GRACE", 0.5)
    began = time.monotonic()
    with pytest.raises(WorkerFailed, match="rank 1 ended with exit code 7"):
        start(monkeypatch, run, "sys.exit(7) if rank == 1 else time.sleep(60)", processes=2)
    assert time.monotonic() - began < 20


def test_ranks_that_say_the_same_are_named_together(monkeypatch, run):
    script = "(logs / f'rank-{rank}.log').write_text('4\\nrank 1 is silent'); sys.exit(4)"
    with pytest.raises(TrainingStopped, match="rank 0 and 1: rank 1 is silent"):
        start(monkeypatch, run, script, processes=2)


def test_sigterm_asks_every_training_process_once_and_what_was_saved_is_told(monkeypatch, run):
    script = (
        "def told(number, _):\n"
        "    (logs / f'told-{rank}').open('a').write(signal.Signals(number).name)\n"
        "    (logs / f'rank-{rank}.log').write_text('130\\nstopped by SIGTERM; saved after step 7')\n"
        "    time.sleep(0.5)\n"
        "    sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, told)\n"
        "(logs / f'ready-{rank}').touch()\n"
        "while not (logs / 'ready-1').exists(): time.sleep(0.01)\n"
        "if rank == 0: os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)"
    )
    with pytest.raises(Interrupted, match="stopped by SIGTERM; saved after step 7"):
        start(monkeypatch, run, script, processes=2)
    assert [(run.logs / f"told-{rank}").read_text() for rank in (0, 1)] == ["SIGTERM", "SIGTERM"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("ends", "error", "said"),
    [
        ("(logs / 'rank-0.log').write_text('3\\nTraceback of it'); sys.exit(3)", TrainingStopped, "Traceback of it"),
        ("(logs / 'rank-0.log').write_text('4\\ndisk full'); sys.exit(4)", TrainingStopped, "disk full"),
        ("os.kill(os.getpid(), signal.SIGKILL)", WorkerFailed, "rank 0 was killed by SIGKILL"),
        ("signal.signal(signal.SIGTERM, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGTERM)", Interrupted, "SIGTERM"),
    ],
    ids=["a bug", "a full disk", "out of memory", "before it can listen"],
)
def test_what_goes_wrong_after_the_request_is_not_taken_for_it(monkeypatch, run, ends, error, said):
    script = (
        f"def told(*_):\n    {ends}\n"
        "signal.signal(signal.SIGTERM, told)\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)"
    )
    with pytest.raises(error, match=said):
        start(monkeypatch, run, script)


def test_a_request_that_comes_when_all_is_done_changes_nothing(monkeypatch, run):
    script = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)"
    )
    start(monkeypatch, run, script)


def test_asked_twice_the_launcher_kills_at_once(run):
    script = (
        "signal.signal(signal.SIGTERM, lambda *_: (logs / 'told').touch())\n"
        "(logs / 'ready').touch()\n"
        "while True: time.sleep(1)"
    )
    with in_a_process_of_its_own(run, script) as launcher:
        wait_until((run.logs / "ready").exists)
        launcher.terminate()
        wait_until((run.logs / "told").exists)
        time.sleep(stopping.TOGETHER + 0.1)
        launcher.terminate()
        said, _ = launcher.communicate(timeout=20)
    assert said.strip() == "[(0, -9)] SIGTERM"


def test_training_processes_do_not_outlive_a_killed_launcher(run):
    script = (
        "from dudi_kit.train.processes import die_with_launcher\n"
        "die_with_launcher()\n"
        "(logs / f'pid-{rank}.partial').write_text(str(os.getpid()))\n"
        "(logs / f'pid-{rank}.partial').rename(logs / f'pid-{rank}')\n"
        "time.sleep(60)"
    )
    with in_a_process_of_its_own(run, script, processes=2) as launcher:
        wait_until(lambda: (run.logs / "pid-0").exists() and (run.logs / "pid-1").exists())
        pids = [int((run.logs / f"pid-{rank}").read_text()) for rank in (0, 1)]
        launcher.kill()
        wait_until(lambda: not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids))


def test_reports_of_an_earlier_run_are_gone(monkeypatch, run):
    (run.logs / "rank-0.log").write_text("1\nan old story")
    (run.logs / "rank-5.beat").write_text("{}")
    with pytest.raises(WorkerFailed) as caught:
        start(monkeypatch, run, "sys.exit(5)")
    assert "old story" not in str(caught.value)
    assert list(run.logs.iterdir()) == []


def test_one_process_needs_no_launcher_and_two_get_torchrun():
    assert launch_command(1, "run", resume=True) == ["-m", "dudi_kit.pipeline.worker", "run", "--resume"]
    two = launch_command(2, "run", resume=False)
    assert two[:2] == ["-m", "torch.distributed.run"]
    assert "--nproc-per-node=2" in two
    assert two[-3:] == ["-m", "dudi_kit.pipeline.worker", "run"]


# --- the process itself


def nobody(*_: Any) -> None:
    """Scores no student."""


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
    assert worker.main([str(run.path)], nobody) == code
    first, _, text = (run.logs / "rank-1.log").read_text().partition("\n")
    assert int(first) == code
    assert text.strip()
    assert text.strip() in capsys.readouterr().err
    assert str(error) in text


def test_an_interrupted_process_leaves_the_last_word_to_who_started_it(monkeypatch, run, capsys):
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "train", fail)
    assert worker.main([str(run.path)], nobody) == Exit.INTERRUPTED
    assert capsys.readouterr().err == ""


def test_where_the_log_can_not_be_written_stderr_has_the_reason(monkeypatch, tmp_path, capsys):
    def fail(*_: Any, **__: Any) -> None:
        raise EnvironmentLack("no space")

    monkeypatch.setattr(worker, "train", fail)
    (tmp_path / "logs").write_text("a file in the way")
    assert worker.main([str(tmp_path)], nobody) == Exit.ENVIRONMENT
    assert "no space" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_at_the_end_leaves_no_final_model(monkeypatch, run, error):
    def write(folder: Path, *_: Any, **__: Any) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(worker, "gathered", lambda *_, **__: {})
    monkeypatch.setattr(worker, "write_student", write)
    accelerator = SimpleNamespace(wait_for_everyone=lambda: None, is_main_process=True)
    unwatched = SimpleNamespace(evaluation=SimpleNamespace(during_training=None))
    loop: Any = SimpleNamespace(
        accelerator=accelerator,
        run=run,
        models=SimpleNamespace(student=None),
        recipe=unwatched,
        around=SimpleNamespace(watch=None),
    )
    with pytest.raises(EnvironmentLack, match=r"can't write .*final: .*No space left on device.*--resume"):
        worker.save_final(loop)
    assert not run.complete()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:9"),
        torch.distributed.DistBackendError("NCCL error: remote process exited"),
    ],
)
def test_the_loss_of_another_process_is_no_bug_of_ours(monkeypatch, run, capsys, error):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(worker, "train", fail)
    assert worker.main([str(run.path)], nobody) == Exit.ENVIRONMENT
    said = capsys.readouterr().err
    assert said.startswith(launch.LOST)
    assert "Traceback" not in said


def test_a_process_that_finds_the_run_stalled_reports_it_and_ends_beside_its_main_thread(monkeypatch, run, capsys):
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setenv("RANK", "0")
    worker._end_stalled(run, "Rank 1 (step 5, rollouts): without a sign of life")
    assert codes == [Exit.ENVIRONMENT]
    assert (run.logs / "rank-0.log").read_text() == "4\nRank 1 (step 5, rollouts): without a sign of life\n"
    assert "Rank 1" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "launcher", "heard"), [("0", None, True), ("1", None, False), ("0", "77", False)])
def test_that_all_were_stopped_is_said_once(monkeypatch, run, capsys, rank, launcher, heard):
    def fail(*_: Any, **__: Any) -> None:
        raise Interrupted("stopped by SIGTERM; saved after step 7")

    monkeypatch.setattr(worker, "train", fail)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv(processes.LAUNCHER, raising=False)
    if launcher:
        monkeypatch.setenv(processes.LAUNCHER, launcher)
    assert worker.main([str(run.path)], nobody) == Exit.INTERRUPTED
    assert ("saved after step 7" in capsys.readouterr().err) is heard
    assert (run.logs / f"rank-{rank}.log").read_text().startswith("130\n")


# --- requests to stop


def test_a_request_is_remembered_and_signals_together_are_one(monkeypatch):
    again: list[int] = []
    before = [signal.getsignal(asking) for asking in stopping.ASKING]
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)  # SIGINT may be ignored where tests run
    with StopRequests(again=lambda: again.append(1)) as stop:
        assert stop.asked is None
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.asked, again) == (signal.SIGTERM, [])
        monkeypatch.setattr(stopping, "TOGETHER", 0.0)
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.asked, again) == (signal.SIGTERM, [1])
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) == before[0]


def test_who_ignores_ctrl_c_goes_on_ignoring_it():
    code = (
        "import os, signal\n"
        "from dudi_kit.train.stopping import StopRequests\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with StopRequests() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stop.asked)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("words", [[], ["--resume"]])
def test_a_run_that_was_killed_after_its_end_is_left_as_it_is(monkeypatch, run, words, capsys):
    (run.final / "part").mkdir(parents=True)
    monkeypatch.setattr(worker, "start_accelerator", lambda *_, **__: pytest.fail("there is nothing left to do"))
    assert worker.main([str(run.path), *words], nobody) == Exit.OK
    assert "trained already" in capsys.readouterr().err
