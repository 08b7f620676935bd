import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from dudi_kit.data.example import Turn
from dudi_kit.evaluate.run import TaskData, evaluate_model
from dudi_kit.evaluate.scores import BITS, Missing, load_answers, load_scores, save_scores
from dudi_kit.recipe.schema.evaluation import Task

DATA = {"path": "{language}.jsonl", "languages": ["id", "lo", "th", "vi"]}


def task(**settings):
    return Task.model_validate({"data": DATA, "max_new_tokens": 4, **settings})


def evaluate(model, encoder, tasks, held_out=(), **options):
    return evaluate_model(model, encoder, tasks=tasks, held_out=held_out, max_length=200, batch_size=4, **options)


def test_every_language_has_its_scores_and_a_missing_one_is_named(model, encoder, examples):
    tasks = {"copy": TaskData(task(metrics=["accuracy", "macro_f1", "chrf"]), examples)}
    scores = evaluate(model, encoder, tasks, examples)
    assert sorted(scores.tasks["copy"].languages) == ["id", "th", "vi"]
    assert scores.tasks["copy"].languages["th"].rows == 4
    assert set(scores.tasks["copy"].languages["th"].metrics) == {"accuracy", "macro_f1", "chrf"}
    assert scores.tasks["copy"].languages["th"].null is None
    assert scores.missing == [Missing("copy", "lo", "no rows"), Missing(BITS, "lo", "no held-out rows")]
    assert scores.tasks["copy"].mean["chrf"].languages == ["id", "th", "vi"]
    values = [row.metrics["chrf"].value for row in scores.tasks["copy"].languages.values()]
    assert scores.tasks["copy"].mean["chrf"].value == pytest.approx(sum(values) / 3)
    assert scores.bits_per_byte_mean.value == pytest.approx(sum(b.value for b in scores.bits_per_byte.values()) / 3)


def test_null_truncated_and_empty_answers_are_counted(model, encoder, examples):
    with torch.no_grad():
        model.lm_head.weight.zero_()  # the first id, a stop token, wins at once: every answer is empty
    tasks = {"topic": TaskData(task(labels=["ekonomi", "เศรษฐกิจ"]), examples)}
    row = evaluate(model, encoder, tasks).tasks["topic"].languages["id"]
    assert (row.rows, row.null, row.empty, row.truncated) == (4, 4, 4, 0)
    with torch.no_grad():
        model.lm_head.weight[-1] = 0.0
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(encoder.tokenizer)))
        model.lm_head.bias[encoder.response_ids("a")[0]] = 1.0
    row = evaluate(model, encoder, tasks).tasks["topic"].languages["id"]
    assert (row.null, row.empty, row.truncated) == (4, 0, 4)


def test_a_prompt_over_the_context_is_counted_and_a_language_of_such_rows_is_missing(model, encoder, examples):
    long = [replace(e, prompt=(Turn("user", "x" * 1000),)) if e.language == "th" else e for e in examples]
    long[0] = replace(long[0], prompt=long[4].prompt)
    scores = evaluate(model, encoder, {"copy": TaskData(task(), long)})
    assert scores.tasks["copy"].languages["id"].rows == 3
    assert scores.tasks["copy"].languages["id"].too_long == 1
    (missing,) = (missing for missing in scores.missing if (missing.task, missing.language) == ("copy", "th"))
    tokens = len(encoder.prompt_ids(long[4].prompt)) + 4
    assert missing.reason == (
        f"every row is too long: prompt and answer are {tokens:,} to {tokens:,} tokens, and there is room for 256. "
        "Lower max_new_tokens (4), or choose a model with a longer context"
    )
    assert list(scores.left_out.values()) == [{"id": 1, "th": 4}]


def test_a_model_that_says_nan_has_no_bits_per_byte(model, encoder, examples):
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    scores = evaluate(model, encoder, {}, examples)
    assert scores.bits_per_byte == {}
    assert scores.bits_per_byte_mean is None
    assert {missing.language for missing in scores.missing} == {"id", "th", "vi"}


def test_nothing_to_evaluate_is_no_score(model, encoder):
    scores = evaluate(model, encoder, {})
    assert (scores.tasks, scores.bits_per_byte, scores.bits_per_byte_mean, scores.missing) == ({}, {}, None, [])


def test_answers_are_kept_for_people_in_the_order_of_the_rows(model, encoder, examples, tmp_path):
    tasks = {"copy": TaskData(task(), examples), "translate": TaskData(task(metrics=["chrf"]), examples[:1])}
    path = tmp_path / "evaluation" / "before.answers.jsonl"
    evaluate(model, encoder, tasks, folder=path.parent, who="before")
    rows = load_answers(path)
    assert [row.id for row in rows] == [str(e.origin) for e in [*examples, examples[0]]]
    assert rows[0].prompt == examples[0].prompt[0].content
    assert rows[0].reference == examples[0].response
    assert rows[0].correct is False
    assert rows[-1].correct is None
    assert "ราคาข้าว" in path.read_text("utf-8")


def test_scores_come_back_from_json_as_they_were(model, encoder, examples, tmp_path):
    tasks = {"copy": TaskData(task(metrics=["accuracy", "chrf"], labels=["a"]), examples)}
    scores = evaluate(model, encoder, tasks, examples)
    save_scores(scores, tmp_path / "before.json")
    assert load_scores(tmp_path / "before.json") == scores
    assert json.loads((tmp_path / "before.json").read_text())["bits_per_byte"]["th"]["value"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["before.json"]


def test_rich_progress_says_what_it_does(model, encoder, examples):
    from dudi_kit.evaluate.progress import rich_track

    console = Console(record=True, width=100, force_terminal=True, file=io.StringIO())
    evaluate(model, encoder, {"copy": TaskData(task(), examples)}, examples, track=rich_track(console))
    text = console.export_text()
    assert "copy" in text
    assert "12/12" in text
