"""Against SEA-HELM v1.2.1's own numbers: the project's golden files where they lie, and a small set for every clone."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from dudi_kit.evaluate.seahelm.aggregate import TaskScore, aggregate
from dudi_kit.evaluate.seahelm.metrics import METRICS, Rows, score

SHARED = Path(__file__).parents[3].parent / "shared" / "goldens" / "seahelm-1.2.1"
METRIC = {"qa": "token_f1", "abssum": "rouge_l"}
TOLERANCE = {"rouge_l": 1e-6}
ITEM_SCALE = {"rouge_l": 1.0}
"""SEA-HELM's rows of ROUGE-L are in percent, all others between 0 and 1."""

golden = pytest.mark.skipif(not SHARED.is_dir(), reason="the golden files lie beside the development checkout only")


@pytest.fixture(scope="module")
def sets():
    """(what SEA-HELM says of a task in a language, its rows, our score)."""
    for package in ("pyonmttok", "pythainlp"):
        pytest.importorskip(package, reason="the extra seahelm is not installed")
    rows = defaultdict(list)
    for line in (SHARED / "predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["task"], row["language"]].append(row)
    return [(said, mine := rows[said["task"], said["language"]], _score(said, mine)) for said in _read("scores.json")]


@golden
def test_every_row_is_parsed_alike(sets):
    compared = 0
    for _, rows, ours in sets:
        for row, parsed in zip(rows, ours.parsed, strict=True):
            assert ("null" if parsed is None else parsed) == row["parsed"], row
            compared += 1
    assert compared == 3929


@golden
def test_every_figure_of_every_set_is_equal(sets):
    for said, _, ours in sets:
        assert ours.figures == pytest.approx(said["metrics"], rel=0, abs=TOLERANCE.get(ours.metric, 1e-9)), said
    assert len(sets) == 42


@golden
def test_every_row_scores_alike(sets):
    for _, rows, ours in sets:
        items = [item / ITEM_SCALE.get(ours.metric, 100.0) for item in ours.items]
        theirs = [next(iter(row["scores"].values())) for row in rows]
        assert items == pytest.approx(theirs, rel=0, abs=TOLERANCE.get(ours.metric, 1e-9))


@golden
def test_the_aggregates_are_equal(sets):
    ours = aggregate(
        [TaskScore(said["task"], said["language"], said["competency"], got.metric, got.value) for said, _, got in sets],
        "run-json",
    )
    theirs = _read("aggregates.json")
    assert ours.overall.value == pytest.approx(theirs["total"], rel=0, abs=1e-9)
    for language, means in theirs["aggregates"].items():
        got = {competency: mean.value for competency, mean in ours.competencies[language].items()}
        assert {**got, "total": ours.languages[language].value} == pytest.approx(means, rel=0, abs=1e-9)
    assert "SEA-HELM score" not in ours.overall.name


@pytest.mark.parametrize(
    "said", json.loads((Path(__file__).parent / "own_goldens.json").read_text()), ids=lambda s: s["name"]
)
def test_the_small_set_of_every_clone(said):
    for package in said["packages"]:
        pytest.importorskip(package, reason="the extra seahelm is not installed")
    rows = Rows(
        said["language"],
        [row["response"] for row in said["rows"]],
        said["tag"],
        [row["references"] for row in said["rows"]],
        said["labels"],
    )
    ours = score(said["metric"], rows)
    assert ours.parsed == [row["parsed"] for row in said["rows"]]
    assert ours.items == pytest.approx([row["score"] for row in said["rows"]], rel=0, abs=1e-9)
    assert ours.figures == pytest.approx(said["figures"], rel=0, abs=1e-9)


def _score(said, rows):
    metric = METRIC.get(said["task"], "balanced_accuracy")
    references = [row["label"] if isinstance(row["label"], list) else [row["label"]] for row in rows]
    labels = sorted({texts[0] for texts in references}) if "labels" in METRICS[metric].needs else None
    responses = [row["response"] for row in rows]
    return score(metric, Rows(said["language"], responses, said["answer_tag"], references, labels))


def _read(name):
    return json.loads((SHARED / name).read_text())
