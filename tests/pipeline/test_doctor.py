"""The doctor finds what is there, says what a lack costs, and stops only where dudi-kit can't run."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dudi_kit.pipeline import doctor, probes
from dudi_kit.pipeline.doctor import Check
from tests.small import call

DEVICES: dict[str, Any] = {"version": "2.13.0", "build": "CPU", "devices": [], "bf16": True}
OPS: dict[str, Any] = {
    "version": "0.19", "built": [], "compatible": ["cpu_adam"], "incompatible": ["async_io"], "compiler": "g++",
    "ninja": True,
}  # fmt: skip
PACKED = {"version": "0.50", "device": "cpu", "bytes": 2048, "error": 0.1}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What the probes answer; a test may change it. The real ones are tried below, one by one."""
    found = {"torch": DEVICES, "deepspeed": OPS, "bitsandbytes": PACKED}
    monkeypatch.setattr(doctor, "_start", lambda name: name)
    monkeypatch.setattr(doctor, "_answer", lambda name, until: found[name])
    return found


def lines(output: str) -> dict[str, str]:
    """{name of the check: sign and text}; what a lack costs is with it."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        if line[:1] in "✓!✗":
            name = line[2:].split("  ")[0].strip()
            found[name] = line
        else:
            found[name] += line
    return found


def test_a_machine_on_which_dudi_kit_runs(answers: dict[str, Any], tmp_path: Path) -> None:
    result = call("doctor", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = lines(result.stdout)
    assert set(found) == {
        "python", "packages", "torch", "GPUs", "bf16", "deepspeed", "bitsandbytes", "memory", "outputs", "hub cache",
        "hub", "hub token", "shared memory", "open files", "fonts", "optional",
    }  # fmt: skip
    assert found["GPUs"].startswith("! GPUs")
    assert "→ training runs on the CPU: fine for students below about 100 M parameters" in found["GPUs"]
    assert str(tmp_path / "out") in found["outputs"]
    assert not (tmp_path / "out").exists()
    assert "HF_HUB_OFFLINE is set" in found["hub"]


def test_without_an_engine_the_exit_code_is_4_and_json_says_so(answers: dict[str, Any], tmp_path: Path) -> None:
    answers["deepspeed"] = {"failed": "ModuleNotFoundError: No module named 'deepspeed'"}
    result = call("doctor", "-o", tmp_path, "--format", "json")
    assert result.exit_code == 4
    told = json.loads(result.stdout)
    assert told["usable"] is False
    (check,) = [check for check in told["checks"] if check["state"] == "error"]
    assert check == {
        "name": "deepspeed",
        "state": "error",
        "found": "ModuleNotFoundError: No module named 'deepspeed'",
        "cost": "nothing is trained without it: pip install deepspeed",
    }
    assert "see deepspeed" in result.stderr


def test_gpus_are_listed_with_their_memory() -> None:
    gpus = [{"name": "H100", "bytes": 80 * 10**9}] * 2
    torch, found, bf16 = doctor.devices({**DEVICES, "build": "CUDA", "devices": gpus, "bf16": False})
    assert found == Check("GPUs", "ok", "2: H100 80 GB, H100 80 GB")
    assert (torch.state, bf16.state) == ("ok", "warning")
    (_, found, _) = doctor.devices({**DEVICES, "build": "CUDA"})
    assert "torch finds none" in found.found


def test_no_compiler_and_no_packing_are_borne_and_priced() -> None:
    check = doctor.engine({**OPS, "compiler": None})
    assert (check.state, "no C++ compiler" in check.found) == ("warning", True)
    assert "needs none" in check.cost
    for broken in ({"failed": "ImportError: x"}, {**PACKED, "error": 0.9}, {**PACKED, "error": float("nan")}):
        check = doctor.packed_teachers(broken)
        assert (check.state, "two to four times the memory" in check.cost) == ("warning", True)
    assert doctor.packed_teachers(PACKED).state == "ok"


def test_a_folder_that_cannot_be_written_in_stops_only_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = doctor.outputs(tmp_path / "file" / "out")
    assert (check.state, check.cost) == ("error", "nothing can be trained: set --output")


def test_a_full_disk_is_priced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_OUTPUTS", 10**18)
    check = doctor.outputs(tmp_path)
    assert (check.state, "bytes a parameter" in check.cost) == ("warning", True)


def test_a_hub_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "HUB_PATIENCE", -0.9)  # waits a tenth of a second
    free = threading.Event()
    wait = doctor._in_background(lambda: free.wait(60) and Check("hub", "ok", "late"))  # type: ignore[arg-type, return-value]
    began = time.monotonic()
    check = wait()
    free.set()
    assert check.state == "warning"
    assert time.monotonic() - began < 30


def test_a_hub_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    check = doctor.hub_reach()
    assert (check.state, "http://127.0.0.1:9 can't be reached" in check.found) == ("warning", True)


def test_the_token_is_never_shown(answers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for form in ("text", "json"):
        result = call("doctor", "-o", tmp_path, "--format", form)
        assert "hf_secret" not in result.output
        assert "there is one" in result.stdout


def test_packages_that_are_missing_or_too_old_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda name: ["torch>=99", "no-such-thing", "other; extra == 'dev'"]
    )
    check = doctor.packages()
    assert check.state == "error"
    assert "torch>=99 (found" in check.found
    assert "no-such-thing (found none)" in check.found
    assert "other" not in check.found


def test_a_limit_on_open_files_is_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda which: (256, 4096))
    assert doctor.open_files() == Check(
        "open files", "warning", "256 at most", "large data sets may fail to open: ulimit -n 4096"
    )


# Probes


def test_nf4_there_and_back() -> None:
    found = probes.bitsandbytes_nf4()
    assert found["bytes"] == 64 * 64 // 2, "two numbers a byte"
    assert 0 < found["error"] < 0.2


def test_torch_and_deepspeed_answer() -> None:
    found = probes.torch_devices()
    assert found["build"] in ("CPU", "CUDA", "ROCm")
    ops = probes.deepspeed_ops()
    assert "cpu_adam" in ops["compatible"] + ops["incompatible"]


def test_what_a_library_says_and_how_it_fails_leave_the_answer_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def noisy() -> dict[str, Any]:
        sys.stdout.write("hello")
        raise ImportError("no such library")

    monkeypatch.setitem(probes.PROBES, "noisy", noisy)
    probes.main("noisy")
    said = capsys.readouterr()
    assert json.loads(said.out) == {"failed": "ImportError: no such library"}
    assert "hello" in said.err


def test_a_probe_that_dies_or_hangs_is_an_answer_too() -> None:
    def process(code: str) -> Any:
        return doctor.subprocess.Popen([sys.executable, "-c", code], stdout=doctor.subprocess.PIPE, text=True)

    soon = time.monotonic() + 60
    assert doctor._answer(process("import os; os._exit(7)"), soon) == {
        "failed": "it ended without an answer (exit code 7)"
    }
    late = doctor._answer(process("import time; time.sleep(60)"), until=time.monotonic())
    assert late == {"failed": f"no answer after {doctor.PATIENCE} s"}
