"""`evaluate verify` against a stand-in checkout, whose script looks for answers where SEA-HELM does."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dudi_kit.evaluate.scores import AnswerRow, LanguageScores, Scores, TaskFacts, TaskScores, save_answers, save_scores
from dudi_kit.evaluate.seahelm.metrics import Rows, score
from dudi_kit.pipeline.verify import Entry, export
from tests.small import call

GOLDENS = json.loads((Path(__file__).parents[1] / "evaluate" / "seahelm" / "own_goldens.json").read_text("utf-8"))
SENTIMENT = next(golden for golden in GOLDENS if golden["name"] == "sentiment-id")

SCRIPT = """
import argparse, json, pathlib, yaml
parser = argparse.ArgumentParser()
for name in ("tasks", "output_dir", "model_type", "model_name", "run"):
    parser.add_argument(f"--{name}", required=True)
given = parser.parse_args()
assert given.model_type == "none"
run = pathlib.Path(given.output_dir, given.model_name, f"run_{given.run}")
golden = json.loads(pathlib.Path("golden.json").read_text("utf-8"))
scores = {}
for language, tasks in yaml.safe_load(pathlib.Path("seahelm_tasks/task_config.yaml").read_text())[given.tasks].items():
    for task in tasks:
        name = f"{given.model_name}_{task}_{language}_turn1_batch_response.jsonl"
        lines = (run / "inferences" / language / task / name).read_text("utf-8").splitlines()
        said = [json.loads(line) for line in lines]
        assert said == [{"responses": r["response"] or "", "errors": None} for r in golden["rows"]], "not our answers"
        scores.setdefault(language, {}).setdefault("nlu", {})[task] = FIGURES
(run / "results").mkdir()
(run / "results" / f"{given.model_name}_seahelm_results_2026.json").write_text(json.dumps(scores))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    home = tmp_path / "SEA-HELM"
    (home / "src").mkdir(parents=True)
    (home / "seahelm_tasks" / "nlu" / "sentiment").mkdir(parents=True)
    (home / "seahelm_tasks" / "task_config.yaml").write_text("seahelm: {id: all}\n")
    (home / "seahelm_tasks" / "nlu" / "sentiment" / "config.yaml").write_text("sentiment: {competency: nlu}\n")
    (home / "golden.json").write_text(json.dumps(SENTIMENT), encoding="utf-8")
    script = SCRIPT.replace("FIGURES", "golden['figures'] | {'errors': 0}")
    (home / "src" / "seahelm_evaluation.py").write_text(script, encoding="utf-8")
    return home


def row(index: int, golden: dict[str, Any]) -> AnswerRow:
    return AnswerRow(
        "sentiment", "id", str(index), "…", golden["references"][0], golden["response"] or "", None, None, False, 1
    )


def evaluated(folder: Path, *, source: str = "hub:aisingapore/NLU@main; prompts by SEA-HELM", of_rows: int = 8) -> Path:
    """A run whose answers are the golden ones, scored by us."""
    rows: Sequence[dict[str, Any]] = SENTIMENT["rows"]
    found = score(
        SENTIMENT["metric"],
        Rows(
            "id", [r["response"] for r in rows], SENTIMENT["tag"], [r["references"] for r in rows], SENTIMENT["labels"]
        ),
    )
    scored = LanguageScores(len(rows), {}, 3, 0, 1, figures=found.figures, of_rows=of_rows, source=source)
    about = TaskFacts(
        "sentiment", "understanding", None, "balanced_accuracy", "instruct", "generation", 0,
        "sentiment",
    )  # fmt: skip
    save_scores(
        Scores({"sentiment": TaskScores({"id": scored}, {}, about)}, {}, None, []), folder / "evaluation/after.json"
    )
    save_answers([row(i, r) for i, r in enumerate(rows)], folder / "evaluation/after.answers.jsonl")
    return folder


def test_the_same_answers_have_the_same_scores(checkout: Path, tmp_path: Path) -> None:
    before = sorted(checkout.rglob("*"))
    run = evaluated(tmp_path / "run")
    result = call("evaluate", "verify", run, "--seahelm-home", checkout, "--seahelm-python", sys.executable)
    assert result.exit_code == 0, result.output
    worst = re.search(r"largest difference: (\S+) \(sentiment id", result.stdout)
    assert worst is not None
    assert float(worst[1]) < 1e-9
    assert {name for name in SENTIMENT["figures"] if name in result.stdout} == set(SENTIMENT["figures"])
    assert sorted(checkout.rglob("*")) == before, "nothing is written into the user's checkout"


def test_another_score_is_shown_with_its_difference(checkout: Path, tmp_path: Path) -> None:
    golden = SENTIMENT | {"figures": SENTIMENT["figures"] | {"macro_f1": 40.0}}
    (checkout / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    run = evaluated(tmp_path / "run")
    result = call("evaluate", "verify", run, "--seahelm-home", checkout, "--seahelm-python", sys.executable)
    assert "largest difference: 2.5e+00 (sentiment id, macro_f1)" in result.stdout


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": "/data/x.csv; prompts by SEA-HELM"}, "its rows are not SEA-HELM's own (/data/x.csv)"),
        ({"source": "hub:aisingapore/NLU@main; prompts by dudi-kit"}, "asked with our prompt"),
        ({"of_rows": 20}, "only 8 of its 20 rows were answered"),
    ],
)
def test_what_seahelm_can_not_score_is_left_out_and_said(
    checkout: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    run = evaluated(tmp_path / "run", **changes)
    result = call("evaluate", "verify", run, "--seahelm-home", checkout, "--seahelm-python", sys.executable)
    assert result.exit_code == 1
    assert f"left out: sentiment id: {reason}" in result.stderr
    assert "nothing to verify" in result.stderr


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit('no vllm here')", "SEA-HELM ended with 1. Its last lines"),
        ("", "SEA-HELM left no results"),
        (
            SCRIPT.replace("FIGURES", "{'normalized_accuracy': 0, 'error': 'Failed'}"),
            "SEA-HELM has no score of sentiment in id",
        ),
    ],
)
def test_a_failure_of_seahelm_is_no_score(checkout: Path, tmp_path: Path, script: str, message: str) -> None:
    (checkout / "src" / "seahelm_evaluation.py").write_text(script, encoding="utf-8")
    run = evaluated(tmp_path / "run")
    result = call("evaluate", "verify", run, "--seahelm-home", checkout, "--seahelm-python", sys.executable)
    assert result.exit_code == 4
    assert message in result.stderr


def test_what_is_missing_is_told(checkout: Path, tmp_path: Path) -> None:
    result = call("evaluate", "verify", tmp_path, "--seahelm-home", checkout)
    assert result.exit_code == 1
    assert "has no scores of 'after': call `dudi-kit evaluate` first" in result.stderr
    result = call("evaluate", "verify", evaluated(tmp_path / "run"), "--seahelm-home", tmp_path)
    assert result.exit_code == 4
    assert "is no checkout of SEA-HELM" in result.stderr


def test_answers_lie_where_seahelm_looks_for_them(tmp_path: Path) -> None:
    export([Entry("thai_exam_onet", "th", "thai_exam", ["คำตอบ: 1", ""], {})], tmp_path / "student")
    place = "run_0/inferences/th/thai_exam/student_thai_exam_onet_th_turn1_batch_response.jsonl"
    assert (tmp_path / "student" / place).read_text(encoding="utf-8") == (
        '{"responses": "คำตอบ: 1", "errors": null}\n{"responses": "", "errors": null}\n'
    )
