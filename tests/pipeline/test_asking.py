"""The teacher is asked once, in batches, in a process of its own; killed at any moment, it goes on with what lacks."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dudi_kit.data.asked import Answer, Request, answer_line, read_answers
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Turn
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import Exit, Interrupted, RunDirectoryError
from dudi_kit.models.scratch import architecture_config, build
from dudi_kit.pipeline import answers, asking, stations
from dudi_kit.pipeline.answers import asked_of
from dudi_kit.pipeline.asking import answer_all, read_requests
from dudi_kit.plan.build import sides_of, teacher_room, teaching_of, training_rows
from dudi_kit.plan.chain import build_chain
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.rows import training_examples
from dudi_kit.plan.schema import read_plan
from dudi_kit.recipe.load import load_recipe
from dudi_kit.recipe.schema.models import Architecture
from dudi_kit.train import assembly
from tests.small import DATASET, ROWS, SFT_ALONE, call, tokenizer, write_chain


def request(text: str, **values: Any) -> Request:
    return Request(
        (Turn("user", text),), **({"max_new_tokens": 6} | values), language="id", target="id", purpose="response"
    )


def asked_for(requests: Sequence[Request], *, batch_size: int = 2, context: int = 128) -> dict[Request, Answer]:
    """What a small random model answers."""
    encoder = Encoder(tokenizer(), who="teacher")
    shape = Architecture(hidden_size=16, layers=1, heads=2, context=context)
    model = build(architecture_config(shape, vocabulary_size=len(encoder.tokenizer)), seed=0)
    found: dict[Request, Answer] = {}
    done: list[int] = []
    answer_all(model.eval(), encoder, requests, batch_size=batch_size, keep=found.update, progress=done.append)
    assert sum(done) == len(requests)
    return found


TEXTS = ["Di mana kucing itu?", "แมวอยู่ที่ไหน", "Where?", "Where is the cat? 1 2 3 4 5 6 7"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_depends_on_its_request_and_not_on_the_batch_that_it_is_in(temperature: float) -> None:
    requests = [request(text, temperature=temperature) for text in TEXTS]
    together = asked_for(requests, batch_size=4)
    assert together == asked_for(requests[::-1], batch_size=1)
    assert set(together) == set(requests)


def test_sampled_answers_change_with_the_seed() -> None:
    first, second = (asked_for([request(t, temperature=1.0, seed=seed) for t in TEXTS]) for seed in (0, -1))
    assert [a.text for a in first.values()] != [a.text for a in second.values()]


def test_a_prompt_that_leaves_no_room_in_the_context_is_not_asked_and_says_so() -> None:
    long, short = request("Di mana? " * 60), request("Di mana?")
    found = asked_for([long, short], context=64)
    assert found[long].fault == "not written, its prompt is longer than the teacher's context"
    assert found[short].text or found[short].ended


# The whole way

ASKS = {
    "data__train": {"rows": {**DATASET, "english": None}},
    "verbalizer__demonstration": {"source": "teacher", "max_new_tokens": 8},
    "student__cold_start": None,
}


class Prepared:
    """A chain whose teacher was asked by `dudi-kit verbalize`, with a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.recipe = write_chain(folder / "recipes", **ASKS)
        self.out = folder / "out"
        self.planned = call("plan", self.recipe, "--output", self.out)
        self.run = RunDir(self.out / "student")
        self.unasked = read_plan(self.run).unasked
        self.requests = read_requests(self.run.requests)
        self.result = call("verbalize", self.recipe, "--output", self.out, "-n", "2", "--language", "th")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("asking"))


@pytest.mark.parametrize(("command", "options"), [("verbalize", []), ("cache", ["--teacher.cache.type=top_k"])])
def test_who_says_no_to_a_plan_has_no_model_trained_or_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: list[str]
) -> None:
    """Of a recipe by reference the plan is shown, and then it is asked about."""

    def no() -> None:
        raise Interrupted("not run")

    for name in ("settled", "_train_chain"):
        monkeypatch.setattr(stations, name, lambda *_, **__: pytest.fail("before anybody said yes"))
    monkeypatch.setattr(f"dudi_kit.cli.{command}.confirmation", lambda recipe, *, yes: no)
    recipe = write_chain(tmp_path / "recipes", **ASKS)
    result = call(command, recipe, "--output", tmp_path / "out", *options)
    assert result.exit_code == Exit.INTERRUPTED, result.stderr
    assert "asked before training for 8 versions" in result.stderr, "the plan has been shown"
    assert not (tmp_path / "out" / ".asked").exists()


def answers_of(out: Path) -> Path:
    (file,) = (out / ".asked").glob("*.jsonl")
    return file


def test_the_plan_tells_how_much_the_teacher_will_be_asked(prepared: Prepared) -> None:
    assert prepared.planned.exit_code == 0, prepared.planned.stderr
    assert prepared.unasked == len(prepared.requests) == 8, "the English rows are their own version"
    assert "asked before training for 8 versions in en (id 4, th 4), 0 answers are there" in prepared.planned.stderr
    assert not (prepared.out / ".asked").exists() or prepared.result.exit_code == 0


def test_verbalize_builds_the_teacher_asks_it_and_shows_what_it_reads(prepared: Prepared) -> None:
    assert prepared.result.exit_code == 0, prepared.result.stderr
    plan = read_plan(prepared.run)
    assert plan.unasked == 0
    assert not prepared.run.requests.exists()
    known = read_answers([answers_of(prepared.out)])
    assert set(known) == {request.key for request in prepared.requests}
    assert read_answers([prepared.run.asked]) == known
    assert "ตัวอย่าง:\n\nแมวอยู่ที่ไหน 0\nคำตอบ: แมวอยู่ใต้โต๊ะ 0" in prepared.result.stdout
    assert "Contoh:" not in prepared.result.stdout, "th alone was asked for"
    failed = [text for text in plan.notices if "without its en part: the teacher" in text]
    assert failed, "two steps of training teach no translating: every failure is counted"
    assert "failed" in prepared.result.stdout


def test_nothing_is_asked_twice_by_this_run_or_another(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "wait_for", lambda *_: pytest.fail("the teacher was asked again"))
    again = call("verbalize", prepared.recipe, "--output", prepared.out)
    assert again.exit_code == 0, again.stderr
    other = call("verbalize", prepared.recipe, "--output", prepared.out, "--name=other", "--training.seed=5")
    assert other.exit_code == 0, other.stderr
    assert (prepared.out / "other" / "asked.jsonl").read_bytes() == prepared.run.asked.read_bytes()


def test_after_a_kill_only_what_lacks_is_asked_and_the_torn_line_harms_nothing(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = answers_of(prepared.out).read_bytes().splitlines(keepends=True)
    file = tmp_path / "answers.jsonl"
    file.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    run = RunDir(tmp_path / "run")
    shutil.copytree(prepared.run.path, run.path)
    run.requests.write_text("".join(json.dumps(r.as_json()) + "\n" for r in prepared.requests))
    asked: list[Request] = []

    def fake(model: Any, encoder: Any, requests: Sequence[Request], *, keep: Any, **_: Any) -> None:
        asked.extend(requests)
        keep([(request, Answer("new", ended=True)) for request in requests])

    monkeypatch.setattr(asking, "answer_all", fake)
    assert asking.main([str(run.path), str(file)]) == Exit.OK
    assert len(asked) == 8 - 3
    found = read_answers([file])
    assert set(found) == {request.key for request in prepared.requests}
    assert sum(answer.text == "new" for answer in found.values()) == 5
    monkeypatch.setattr(asking, "loaded", lambda *_, **__: pytest.fail("there is nothing left to ask"))
    assert asking.main([str(run.path), str(file)]) == Exit.OK


def test_a_full_disk_is_told_with_the_file_and_is_no_bug(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(prepared.run.path, run.path)
    run.requests.write_text("".join(json.dumps(r.as_json()) + "\n" for r in prepared.requests))
    monkeypatch.setattr(asking.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert asking.main([str(run.path), str(tmp_path / "answers.jsonl")]) == Exit.ENVIRONMENT
    said = " ".join(capsys.readouterr().err.split())
    assert "can't write" in said
    assert "No space left on device" in said


def good_answers(prepared: Prepared) -> str:
    """A good version for every request, as a file."""
    text = "<task>\nWhere is the cat?\n</task>\n<answer>\nUnder the table.\n</answer>"
    return "".join(answer_line(request.key, Answer(text, ended=True)) for request in prepared.requests)


def test_training_makes_the_rows_of_the_plan_from_the_answers_and_refuses_to_do_without(
    prepared: Prepared, tmp_path: Path
) -> None:
    run, plan = RunDir(tmp_path / "run"), read_plan(prepared.run)
    shutil.copytree(prepared.run.path, run.path)
    run.asked.write_text(good_answers(prepared))
    stage = replace(build_chain(load_recipe(prepared.recipe).recipe, prepared.recipe, prepared.out), run=run)
    asked = asked_of(stage)
    examples = training_examples(stage.recipe, Ledger(), asked)
    student, teaching = sides_of(stage, examples)
    room = teacher_room(stage.recipe, teaching)
    rows = training_rows(stage.recipe, examples, student, teaching, room, Ledger(), asked).rows
    assert assembly.planned_rows(run, stage.recipe, plan, student, teaching_of(plan, run, student)).rows == rows
    assert teaching is not None
    read = [teaching.encoder.tokenizer.decode(row.teacher_prompts["on_policy"]) for row in rows]
    assert sum("Under the table." in text for text in read) == 8
    run.asked.unlink()
    with pytest.raises(RunDirectoryError, match="lacks 8 texts that the teacher has to write before training"):
        assembly.planned_rows(run, stage.recipe, plan, student, teaching_of(plan, run, student))


def test_responses_of_a_teacher_are_asked_once_for_the_cold_start_and_what_follows(
    prepared: Prepared, tmp_path: Path
) -> None:
    """The teacher of two steps never ends an answer, so that the data's own responses are kept, counted."""
    responses = {"from": "teacher", "max_new_tokens": 4, "on_failure": "corpus"}
    data = {"rows": {**DATASET, "responses": responses}}
    recipe = write_chain(tmp_path, data__train=data, signals=SFT_ALONE, student__cold_start={"steps": 1})
    out = tmp_path / "out"
    shutil.copytree(prepared.out, out, ignore=shutil.ignore_patterns("student", "other"))
    result = call("verbalize", recipe, "--output", out, "-n", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("asking the teacher for 12 texts") == 1
    cold = next(out.glob("student.cold-start-*"))
    assert read_answers([cold / "asked.jsonl"]) == read_answers([out / "student" / "asked.jsonl"])
    assert len(read_answers([cold / "asked.jsonl"])) == len(ROWS)
    (counted,) = [text for text in read_plan(RunDir(out / "student")).notices if "teacher's response" in text]
    assert counted.startswith("teacher's response cut at max_new_tokens: the data's kept: 12 (en 4, id 4, th 4)")
    assert "→ Kucing itu di bawah meja. 0" in result.stdout


def test_a_teacher_that_can_not_be_asked_is_told_with_its_exit_code(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_chain(tmp_path / "recipes", **ASKS)
    out = tmp_path / "out"
    shutil.copytree(prepared.out, out, ignore=shutil.ignore_patterns("student", "other", ".asked"))
    for code, expected, word in (
        (4, 4, "the reason stands above"),
        (-9, 4, "killed by signal 9"),
        (77, 4, "could not"),
    ):
        monkeypatch.setattr(answers, "wait_for", lambda *_, code=code: code)
        result = call("verbalize", recipe, "--output", out)
        assert result.exit_code == expected
        assert word in result.stderr

    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(answers, "wait_for", interrupted)
    result = call("verbalize", recipe, "--output", out)
    assert result.exit_code == Exit.INTERRUPTED
    assert "what the teacher has answered is kept" in result.stderr


def test_a_language_without_rows_is_refused(prepared: Prepared) -> None:
    result = call("verbalize", prepared.recipe, "--output", prepared.out, "--language", "ta")
    assert result.exit_code == Exit.INVALID
    assert "--language ta: no training row is in this language" in result.stderr
    assert call("verbalize", prepared.recipe, "--language", "xx").exit_code == Exit.USAGE
