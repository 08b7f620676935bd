"""Answers that were given elsewhere: scored as they are; one that fits no row is an error, never a wrong one."""

import json
import re
from pathlib import Path

import pytest

from dudi_kit.evaluate.scores import load_answers, load_scores
from tests.small import call

HEADER = "index_id\tcategory\ttext\n"
ROWS = [
    ("1", "travel", "Kereta tiba"),
    ("2", "sports", "Pertandingan"),
    ("3", "travel", "Bandara"),
    ("4", "sports", "Gol"),
]
RIGHT = {"1": "Jawaban: perjalanan", "2": "Jawaban: olahraga", "3": "Jawaban: perjalanan", "4": "Jawaban: olahraga"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "home" / "sib200" / "id"
    folder.mkdir(parents=True)
    text = HEADER + "".join("\t".join(row) + "\n" for row in ROWS)
    (folder / "test.tsv").write_text(text, encoding="utf-8")
    (folder / "train.tsv").write_text(HEADER, encoding="utf-8")
    return tmp_path / "home"


def given(answers: dict[str, str], name: str = "topic.id.jsonl") -> Path:
    folder = Path("given")
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"id": name, "response": response}) + "\n" for name, response in answers.items()]
    (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder


def test_right_answers_are_scored_and_an_empty_one_is_an_answer(home: Path) -> None:
    result = call("evaluate", "--predictions", given(RIGHT | {"4": ""}), "--data-home", home, "-o", "out")
    assert result.exit_code == 0, result.output
    scored = load_scores(Path("out/evaluation/after.json")).tasks["topic"].languages["id"]
    assert (scored.rows, scored.null, scored.empty) == (4, 1, 1)
    assert scored.figures["accuracy"] == pytest.approx(75)
    assert scored.seconds is None
    assert {row.id: row.value for row in load_answers(Path("out/evaluation/after.answers.jsonl"))} == {
        "1": 100, "2": 100, "3": 100, "4": 0
    }  # fmt: skip
    assert "nlu: covers topic; not SEA-HELM's score" in result.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"1": "a", "2": "b"}, r"topic\.id\.jsonl: 2 of 4 rows have no prediction: '3', '4'"),
        (RIGHT | {"7": "x"}, r"topic\.id\.jsonl:5: no row of topic in id has the id '7'\. Its ids are like '\d'"),
        ('{"id": 1, "response": "a"}\n{"id": "1", "response": "b"}\n', r":2: the id '1' stands in line 1 already"),
        ('{"id": "1"}\n', r':1: expected \{"id": …, "response": "…"\}, found \{"id": "1"\}'),
        ('{"id": "1", \n', r":1: expected one JSON object a line"),
    ],
)
def test_ids_that_do_not_fit_are_named(home: Path, content: dict[str, str] | str, message: str) -> None:
    folder = given(content if isinstance(content, dict) else {})
    if isinstance(content, str):
        (folder / "topic.id.jsonl").write_text(content, encoding="utf-8")
    result = call("evaluate", "--predictions", folder, "--data-home", home, "-o", "out")
    assert result.exit_code == 1
    assert re.search(message, result.stderr)
    assert not Path("out").exists()


def test_files_of_no_task_and_missing_files_are_named(home: Path) -> None:
    folder = given(RIGHT, "topics.id.jsonl")
    result = call("evaluate", "--predictions", folder, "--data-home", home)
    assert result.exit_code == 1
    assert "topics.id.jsonl: there is no such task and language. Did you mean topic.id.jsonl?" in result.stderr
    result = call("evaluate", "--predictions", folder, "--data-home", home, "--tasks", "topic", "--languages", "id")
    assert result.exit_code == 1
    assert "given has no topic.id.jsonl" in result.stderr


def test_only_empty_answers_are_no_score(home: Path) -> None:
    folder = given(dict.fromkeys(RIGHT, " "))
    result = call("evaluate", "--predictions", folder, "--data-home", home, "-o", "out")
    assert result.exit_code == 0
    assert "not scored: topic id: all 4 answers are empty: a model that says nothing has no score" in result.stdout
    assert load_scores(Path("out/evaluation/after.json")).tasks["topic"].languages == {}


def test_two_sets_of_predictions_are_compared_item_by_item(home: Path) -> None:
    for name, answers in (("good", RIGHT), ("bad", RIGHT | {"1": "Jawaban: olahraga", "2": "?"})):
        result = call("evaluate", "--predictions", given(answers), "--data-home", home, "-o", name)
        assert result.exit_code == 0, result.output
    result = call("compare", "good", "bad", "--format", "json")
    assert result.exit_code == 0, result.output
    (line,) = json.loads(result.stdout)["lines"]
    first, second = line["standings"]
    half = 100 * (1 / 2 - 1 / 7) / (1 - 1 / 7)  # above chance: seven labels
    assert (line["items"], first[0], line["normalised"]) == (4, 100, True)
    assert (second[0], second[2]["value"]) == pytest.approx((half, half - 100))
