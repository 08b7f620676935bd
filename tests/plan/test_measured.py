"""The estimate against the peak of a real run. Larger ones are in benchmarks/memory.py."""

import sys
from pathlib import Path

import pytest

from benchmarks.memory import Case, measure, prepare
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import read_plan
from tests.small import call


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_a_real_run_needs_what_was_planned_within_a_fifth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    case = Case("small", 256, 4, 8_000, "fp32", words=32)
    result = call("plan", prepare(case, tmp_path), "--output", tmp_path / "out", "--hardware", "cpu-16G")
    assert result.exit_code == 0, result.stderr
    run = RunDir(tmp_path / "out" / case.name)
    [measured] = measure(run, 1)
    assert read_plan(run).memory.chosen.peak_bytes == pytest.approx(measured, rel=0.2)
