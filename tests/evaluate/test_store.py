"""Answers that survive a kill, and never answer another question."""

from dataclasses import replace
from pathlib import Path

import pytest

from dudi_kit.errors import EnvironmentLack
from dudi_kit.evaluate.store import Answers, Said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers" / "nli.id.jsonl"


def _said(store: Answers, prompt: list[int], response: str = "ya") -> Said:
    return Said(store.key(prompt, 64), str(prompt), response, 1, truncated=False, nats=[1.5, None])


def test_what_was_answered_is_found_again(path: Path) -> None:
    store = Answers(path, "model a")
    said = _said(store, [1, 2], "line\u2028break\x85 and ไทย")
    store.add([said])
    again = Answers(path, "model a")
    assert again.key([1, 2], 64) in again
    assert again[said.key] == said


def test_another_model_prompt_or_limit_finds_nothing(path: Path) -> None:
    store = Answers(path, "model a")
    store.add([_said(store, [1, 2])])
    assert Answers(path, "model b").key([1, 2], 64) not in store
    assert store.key([1, 3], 64) not in store
    assert store.key([1, 2], 65) not in store


def test_a_line_cut_short_by_a_kill_is_asked_again_and_harms_no_other(path: Path) -> None:
    store = Answers(path, "m")
    first, second, third = (_said(store, [i]) for i in range(3))
    store.add([first, second])
    path.write_bytes(path.read_bytes()[:-20])
    again = Answers(path, "m")
    assert first.key in again
    assert second.key not in again
    again.add([third])
    last = Answers(path, "m")
    assert first.key in last
    assert third.key in last


def test_answers_to_other_prompts_go_when_the_task_is_done(path: Path) -> None:
    store = Answers(path, "m")
    said = [_said(store, [i]) for i in range(3)]
    store.add(said)
    store.keep_only([said[2].key, said[0].key])
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert said[1].key not in Answers(path, "m")


def test_a_later_answer_to_the_same_item_counts(path: Path) -> None:
    store = Answers(path, "m")
    said = _said(store, [1])
    store.add([said])
    store.add([replace(said, response="tidak")])
    assert Answers(path, "m")[said.key].response == "tidak"


def test_a_folder_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    store = Answers(tmp_path / "file" / "x.jsonl", "m")
    with pytest.raises(EnvironmentLack, match="can't write"):
        store.add([_said(store, [1])])
