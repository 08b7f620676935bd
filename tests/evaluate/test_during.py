"""A student that is scored while it trains: the same rows every time, shared out, and nothing silently 0."""

import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example, Origin, Turn
from dudi_kit.errors import DataError
from dudi_kit.evaluate import during
from dudi_kit.evaluate.during import RIGHT_ANSWER, Drawn, StudentScorer, draw
from dudi_kit.evaluate.run import TaskData, evaluate_model
from dudi_kit.evaluate.run_named import NamedData
from dudi_kit.evaluate.scores import BITS
from dudi_kit.evaluate.task_rows import LanguageRows, TaskRow
from dudi_kit.recipe.schema.evaluation import NamedTask, Task
from dudi_kit.recipe.task_files import load_task
from dudi_kit.train.during import StepScores

DATA = {"path": "{language}.jsonl", "languages": ["id", "lo", "th", "vi"]}


def task(**settings: Any) -> Task:
    return Task.model_validate({"data": DATA, "max_new_tokens": 4, **settings})


def sentiment(languages: tuple[str, ...] = ("id", "th")) -> NamedData:
    """Six rows a language, of which two are positive."""

    def row(language: str, i: int) -> TaskRow:
        words = ("positif", "negatif", "netral")
        return TaskRow(
            "sentiment", language, str(i), f"Hujan {i}", (Turn("user", f"Hujan {i}"),), "", (words[i % 3],), words,
            tuple(f"Jawaban: {word}" for word in words), "test",
        )  # fmt: skip

    rows = {
        code: LanguageRows(
            [row(code, i) for i in range(6)],
            "Jawaban:",
            ("positif", "negatif", "netral"),
            code,
            6,
            "here",
            {},
            "ours",
            None,
            (),
        )
        for code in languages
    }
    return NamedData(load_task("sentiment"), NamedTask(task="sentiment"), rows, {"ta": "no file"})


def scorer(drawn: Drawn, encoder: Encoder, best: str = BITS) -> StudentScorer:
    return StudentScorer(drawn, encoder, best=best, max_length=200, batch_size=4, rows_read=2)


def scored(made: StudentScorer, model: LlamaForCausalLM, processes: int = 1) -> StepScores:
    told: list[str] = []
    shares = [made.ask(model, process, processes, told.append) for process in range(processes)]
    assert told
    return made.score(pickle.loads(pickle.dumps(shares)))  # they go from process to process


@pytest.fixture
def drawn(examples: list[Example]) -> Drawn:
    return draw({"copy": TaskData(task(metrics=["chrf"]), examples)}, {"mood": sentiment()}, examples, limit=3, seed=0)


def test_the_draw_is_the_same_every_time_and_every_label_keeps_its_share(examples: list[Example]) -> None:
    labelled = [replace(e, response="naik" if i % 4 else "turun") for i, e in enumerate(examples)]
    tasks = {"up": TaskData(task(labels=["naik", "turun"]), labelled)}
    one = draw(tasks, {"mood": sentiment()}, examples, limit=3, seed=0)
    two = draw({"up": TaskData(task(), labelled[::-1])}, {"mood": sentiment()}, examples[::-1], limit=3, seed=0)
    assert [e.language for e in one.held_out] == ["id"] * 3 + ["th"] * 3 + ["vi"] * 3
    assert {e.origin for e in one.held_out} == {e.origin for e in two.held_out}
    for language in ("id", "th", "vi"):
        assert {e.response for e in one.tasks["up"].examples if e.language == language} == {"naik", "turun"}
    for rows in one.named["mood"].rows.values():
        assert {row.references[0] for row in rows.rows} == {"positif", "negatif", "netral"}
        assert rows.whole == 6


def test_another_draw_has_another_identity(examples: list[Example]) -> None:
    draws = [draw({}, {}, examples, limit=limit, seed=seed) for limit, seed in [(3, 0), (2, 0), (3, 1), (3, 0)]]
    names = [each.identity for each in draws]
    assert names[0] == names[3]
    assert len(set(names)) == 3


def test_the_draw_does_not_depend_on_where_the_files_lie(examples: list[Example]) -> None:
    moved = [replace(e, origin=e.origin._replace(file=f"/home/other/{e.origin.file}")) for e in examples]
    here, there = (draw({"copy": TaskData(task(), rows)}, {}, rows, limit=3, seed=0) for rows in (examples, moved))
    assert [e.response for e in here.held_out] == [e.response for e in there.held_out]
    assert [e.response for e in here.tasks["copy"].examples] == [e.response for e in there.tasks["copy"].examples]
    assert here.identity == there.identity


def test_fewer_rows_than_labels_are_refused(examples: list[Example]) -> None:
    tasks = {"copy": TaskData(task(labels=[e.response for e in examples]), examples)}
    with pytest.raises(DataError, match="limit: 3 rows can't show the 4 labels of copy in id; set it to 4 or more"):
        draw(tasks, {}, [], limit=3, seed=0)


def test_shared_out_over_processes_the_scores_are_the_same(
    drawn: Drawn, model: LlamaForCausalLM, encoder: Encoder
) -> None:
    one = scored(scorer(drawn, encoder), model)
    assert RIGHT_ANSWER in one.line["tasks"]["mood"]
    for processes in (2, 5):
        other = scored(scorer(drawn, encoder), model, processes)
        assert other.value == pytest.approx(one.value, rel=1e-5)
        assert other.line["missing"] == one.line["missing"]
        assert other.line["tasks"]["copy"] == one.line["tasks"]["copy"]
        ours, theirs = (line["tasks"]["mood"][RIGHT_ANSWER]["by_language"] for line in (one.line, other.line))
        assert theirs == pytest.approx(ours, rel=1e-5)


def test_they_are_what_an_evaluation_of_all_rows_says(
    examples: list[Example], model: LlamaForCausalLM, encoder: Encoder
) -> None:
    tasks = {"copy": TaskData(task(metrics=["chrf"]), examples)}
    whole = evaluate_model(model, encoder, tasks=tasks, held_out=examples, max_length=200, batch_size=4)
    during_training = scored(scorer(draw(tasks, {}, examples, limit=99, seed=0), encoder), model)
    assert whole.bits_per_byte_mean is not None
    assert during_training.value == pytest.approx(whole.bits_per_byte_mean.value, rel=1e-5)
    chrf = {code: row.metrics["chrf"].value for code, row in whole.tasks["copy"].languages.items()}
    assert during_training.line["tasks"]["copy"]["chrf"]["by_language"] == pytest.approx(chrf)


def test_a_student_that_says_nothing_and_a_language_without_rows_are_missing_and_never_0(
    drawn: Drawn, model: LlamaForCausalLM, encoder: Encoder
) -> None:
    with torch.no_grad():
        model.lm_head.weight.zero_()  # the first id, a stop token, wins at once: every answer is empty
    found = scored(scorer(drawn, encoder, best="copy"), model)
    assert found.value is None
    assert "copy" not in found.line["tasks"]
    nothing = "a model that says nothing has no score"
    assert found.line["missing"]["copy"] == {
        **dict.fromkeys(("id", "th", "vi"), f"all 3 answers are empty: {nothing}"), "lo": "no rows",
    }  # fmt: skip
    assert found.line["missing"]["mood"]["ta"] == "no file"
    assert nothing in found.line["missing"]["mood"]["id"]
    assert found.line["missing"][BITS] == {"lo": "no held-out rows"}
    assert "mood" not in found.line["tasks"]


def test_a_mean_that_lacks_a_language_picks_no_step(
    drawn: Drawn, model: LlamaForCausalLM, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = during.answer_task

    def mute_in_thai(*arguments: Any) -> Any:
        return [replace(row, answer="" if row.language == "th" else "x") for row in real(*arguments)]

    monkeypatch.setattr(during, "answer_task", mute_in_thai)
    found = scored(scorer(drawn, encoder, best="copy"), model)
    assert set(found.line["tasks"]["copy"]["chrf"]["by_language"]) == {"id", "vi"}
    assert found.value is None
    monkeypatch.setattr(during, "answer_task", lambda *a: [replace(row, answer="x") for row in real(*a)])
    found = scored(scorer(drawn, encoder, best="copy"), model)
    assert found.value == found.line["tasks"]["copy"]["chrf"]["all"]


def test_a_loss_that_is_no_number_is_missing_and_picks_no_step(
    drawn: Drawn, model: LlamaForCausalLM, encoder: Encoder
) -> None:
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    found = scored(scorer(drawn, encoder), model)
    assert found.value is None
    assert "bits_per_byte" not in found.line
    assert found.line["missing"][BITS]["id"] == "the model's loss is not a finite number"


def test_rows_that_are_too_long_are_counted(model: LlamaForCausalLM, encoder: Encoder) -> None:
    long = Example((Turn("user", "x" * 1000),), "y", "id", None, Origin("mine", "id.jsonl", 1))
    short = replace(long, prompt=(Turn("user", "x"),), origin=Origin("mine", "id.jsonl", 2))
    made = draw({"copy": TaskData(task(), [long, short])}, {}, [long, short], limit=9, seed=0)
    found = scored(scorer(made, encoder), model, processes=2)
    assert list(found.line["left_out"].values()) == [{"id": 1}, {"id": 1}]


def test_where_no_row_of_a_process_fits_the_others_rows_still_count(model: LlamaForCausalLM, encoder: Encoder) -> None:
    entry = sentiment(("id",))
    long = [replace(row, prompt=(Turn("user", "x" * 1000),)) for row in entry.rows["id"].rows[1:]]
    rows = replace(entry.rows["id"], rows=[entry.rows["id"].rows[0], *long])
    drawn = Drawn({}, {"mood": replace(entry, rows={"id": rows})}, [])
    made = replace(scorer(drawn, encoder, best="mood"), max_length=200)
    shares = [made.ask(model, process, 6, lambda _: None) for process in range(6)]
    assert [len(share.said["mood"]) for share in shares] == [1, 0, 0, 0, 0, 0]
    assert list(made.score(shares).line["left_out"].values()) == [{"id": 5}]


def test_answers_to_texts_to_complete_end_as_they_do_after_training(
    model: LlamaForCausalLM, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = sentiment()
    ends = {"id": "\n", "th": None}
    entry = replace(entry, rows={code: replace(rows, until=ends[code]) for code, rows in entry.rows.items()})
    asked: dict[str, str | None] = {}
    real = during.answer_rows

    def noted(student: Any, encoder: Any, rows: Any, how: Any, *rest: Any, **named: Any) -> Any:
        asked.update({row.language: how.until for row in rows})
        return real(student, encoder, rows, how, *rest, **named)

    monkeypatch.setattr(during, "answer_rows", noted)
    scorer(Drawn({}, {"mood": entry}, []), encoder, best="mood").ask(model, 0, 1, lambda _: None)
    assert asked == ends
