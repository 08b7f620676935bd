"""env.json keeps every leg of a run."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dudi_kit.pipeline.legs import leg
from dudi_kit.plan.layout import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def written(run: RunDir) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(run.environment.read_text(encoding="utf-8"))
    return facts


def test_a_resumed_run_keeps_the_legs_before_and_adds_up_their_time(run: RunDir) -> None:
    with suppress(KeyboardInterrupt), leg(run, 2, resume=False):
        assert written(run)["legs"][0]["seconds"] is None, "a leg that is killed has begun all the same"
        raise KeyboardInterrupt
    facts = written(run)
    facts["legs"][0] |= {"began": "2026-11-20T10:00:00+0000", "seconds": 3600.0}
    run.environment.write_text(json.dumps(facts), encoding="utf-8")
    run.final.mkdir()
    (run.final / "model.safetensors").write_bytes(b"weights")
    with leg(run, 1, resume=True):
        pass
    facts = written(run)
    assert [part["processes"] for part in facts["legs"]] == [2, 1]
    assert facts["processes"] == 1
    assert facts["began"] == "2026-11-20T10:00:00+0000"
    assert 3600 <= facts["seconds"] < 3610
    assert facts["final"]


@pytest.mark.parametrize("text", ["", "[]", '{"legs": 5}', '{"legs": [{}]}'])
def test_a_file_that_can_not_be_read_and_a_run_from_the_start_begin_a_new_list(run: RunDir, text: str) -> None:
    run.environment.write_text(text, encoding="utf-8")
    with leg(run, 1, resume=True):
        pass
    with leg(run, 1, resume=False):
        pass
    assert len(written(run)["legs"]) == 1
