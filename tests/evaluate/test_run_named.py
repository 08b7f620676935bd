"""Named tasks from the files to the scores, on a tiny model: asked once, kept, scored, and nothing silently 0."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaForCausalLM

from dudi_kit.data.encode import Encoder
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError
from dudi_kit.evaluate import answering
from dudi_kit.evaluate.named import aggregates
from dudi_kit.evaluate.progress import silent
from dudi_kit.evaluate.run_named import Asked, Outcome, evaluate_named
from dudi_kit.evaluate.statistics import items_of
from dudi_kit.pipeline.benchmarks import named_data
from dudi_kit.recipe.schema.evaluation import Evaluation

LABELS = {"naik": "naik", "turun": "turun"}
TEXTS = {"Harga beras": "naik", "Hujan": "turun", "Kucing itu": "turun", "Ibu pergi": "naik", "Beras lagi": "naik"}
ROWS = [{"id": i, "text": text, "label": label} for i, (text, label) in enumerate(TEXTS.items())]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    asked = {"question": "{text}", "answer_tag": "Jawaban:", "format": "{answer_tag} {labels}"}
    source = {"path": "rows.jsonl", "columns": {"label": "label", "text": "text"}, "id": "id"}
    file = tmp_path / "direction.yaml"
    settings: dict[str, Any] = {
        "task": 1, "name": "direction", "competency": "understanding", "description": "Up or down.", "licence": "ours",
        "metric": "balanced_accuracy", "fields": ["text"], "labels": LABELS, "max_new_tokens": 6,
        "shots": {"instruct": 0, "base": 0}, "sources": [source], "languages": {"id": asked},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


Run = Callable[..., Outcome]


@pytest.fixture
def run(model: LlamaForCausalLM, encoder: Encoder, tmp_path: Path) -> Run:
    def evaluate(tasks: dict[str, Any], weights: str = "these", context: int = 100_000) -> Outcome:
        data = named_data(Evaluation.model_validate({"tasks": tasks}), Ledger())
        asked = Asked(model.eval(), encoder, context, 2, tmp_path / "answers", weights)
        return evaluate_named(data, asked, track=silent, ledger=Ledger())

    return evaluate


def _says(monkeypatch: pytest.MonkeyPatch, answer: Callable[[int], str]) -> list[int]:
    """Replace generation; the prompts that were asked are counted in the list."""
    asked: list[int] = []

    def greedy(model: Any, encoder: Any, prompts: list[Any], **_: Any) -> Any:
        for i in range(len(prompts)):
            asked.append(i)
            yield {i: answering.Answer(answer(i), 1, truncated=False)}

    monkeypatch.setattr(answering, "greedy_batches", greedy)
    return asked


def test_generated_answers_are_parsed_and_scored_by_hand(monkeypatch: pytest.MonkeyPatch, run: Run, task: Path) -> None:
    """Recall of naik 2/3, of turun 1/2: balanced 58.3, above chance 16.7. One answer has no label."""
    said = ["Jawaban: naik", "jawaban: **TURUN", "Jawaban: naik", "naik", "entah"]
    _says(monkeypatch, said.__getitem__)
    found = run({"up": {"task": str(task)}})
    scores = found.tasks["up"].languages["id"]
    assert scores.metrics["normalised accuracy"].value == pytest.approx(100 * (2 * (2 / 3 + 1 / 2) / 2 - 1))
    assert (scores.rows, scores.null, scores.of_rows, scores.choices) == (5, 1, 5, 2)
    assert scores.weak is not None
    assert scores.weak.raw_accuracy == pytest.approx(60)
    assert [row.parsed for row in found.answers] == ["naik", "turun", "naik", "naik", None]
    assert items_of(
        [row.value or 0 for row in found.answers], [row.stratum for row in found.answers]
    ).score == pytest.approx(scores.figures["accuracy"])
    assert scores.right_answer is not None
    assert scores.right_answer.answers == 5


def test_likelihoods_choose_the_likeliest_label(run: Run, task: Path) -> None:
    scores = run({"up": {"task": str(task), "scoring": "logprob"}}).tasks["up"].languages["id"]
    assert scores.null == 0
    assert scores.truncated == 0


def test_what_was_answered_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, run: Run, task: Path) -> None:
    asked = _says(monkeypatch, lambda i: "Jawaban: naik")
    first = run({"up": {"task": str(task)}})
    again = run({"up": {"task": str(task)}})
    assert len(asked) == len(ROWS)
    assert again.answers == first.answers
    run({"up": {"task": str(task)}}, weights="others")
    assert len(asked) == 2 * len(ROWS)


def test_a_model_that_says_nothing_has_no_score(monkeypatch: pytest.MonkeyPatch, run: Run, task: Path) -> None:
    _says(monkeypatch, lambda i: " ")
    found = run({"up": {"task": str(task)}})
    assert found.tasks["up"].languages == {}
    assert "all 5 answers are empty" in found.missing[0].reason
    assert aggregates(found.tasks)[0].languages == {}


def test_rows_that_do_not_fit_are_missing_with_their_lengths(run: Run, task: Path) -> None:
    found = run({"up": {"task": str(task), "mode": "base", "scoring": "logprob"}}, context=5)
    assert found.tasks["up"].languages == {}
    (missing,) = found.missing
    told = r"every row is too long: prompt and answer are \d+ to \d+ tokens, and there is room for 5\. Show fewer"
    assert re.match(told, missing.reason)


def test_an_answer_to_a_text_to_complete_ends_with_its_line(task: Path) -> None:
    tasks = {mode: {"task": str(task), "mode": mode} for mode in ("base", "instruct")}
    data = named_data(Evaluation.model_validate({"tasks": tasks}), Ledger())
    assert {mode: data[mode].rows["id"].until for mode in tasks} == {"base": "\n", "instruct": None}


def test_requests_are_checked_for_form_and_language(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    _says(monkeypatch, lambda i: "!")
    found = run({"obey": {"task": "instructions", "languages": ["id", "my"], "limit": 4}})
    assert {code: scores.rows for code, scores in found.tasks["obey"].languages.items()} == {"id": 4, "my": 4}
    assert found.tasks["obey"].mean["strict pass"].value == 0


def test_a_task_without_any_data_is_refused(run: Run) -> None:
    with pytest.raises(DataError, match=r"evaluation\.tasks\.topics: no language has rows"):
        run({"topics": {"task": "topic", "languages": ["id"]}})


def test_means_by_competency_say_what_they_cover(monkeypatch: pytest.MonkeyPatch, run: Run, task: Path) -> None:
    _says(monkeypatch, lambda i: "Jawaban: naik")
    for whole in aggregates(run({"up": {"task": str(task)}}).tasks):
        assert whole.languages["id"].value == 0
        assert not whole.languages["id"].whole
        assert "SEA-HELM score" not in whole.overall.name


def test_a_task_may_be_asked_in_two_ways(monkeypatch: pytest.MonkeyPatch, run: Run, task: Path) -> None:
    _says(monkeypatch, lambda i: "Jawaban: naik")
    tasks = {"chat": {"task": str(task)}, "likeliest": {"task": str(task), "scoring": "logprob"}}
    for whole in aggregates(run(tasks).tasks):
        assert list(whole.tasks["id"]["nlu"]) == ["direction", "likeliest"]
