"""How a teacher is asked for a row in another language, and which of its answers are shown."""

import unicodedata

import pytest

from dudi_kit.data.asked import Answer, Asked
from dudi_kit.data.example import Example, Exchange, Origin, Turn
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.script import is_mostly_in
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.schema.verbalizer import Demonstration
from dudi_kit.verbalizer.demonstration import Demonstrator
from dudi_kit.verbalizer.versions import read_version, version_request

SYSTEM, PROMPT = Turn("system", "Ringkas saja."), Turn("user", "Apa ini?")
INDONESIAN = Example((SYSTEM, PROMPT), "Kucing.", "id", None, Origin("rows", "/rows.jsonl", 1))
WRITTEN = "<task>\nWhat is this?\n</task>\n<answer>\nA cat.\n</answer>"
ENGLISH = Exchange("en", "What is this?", "A cat.")


def test_the_request_says_task_and_answer_between_the_marks_that_it_asks_for() -> None:
    request = version_request(INDONESIAN, "en", 64)
    (turn,) = request.turns
    assert turn.role == "user"
    assert turn.content.startswith("Translate the task and its answer below into English.")
    assert turn.content.endswith("\n\n<task>\nApa ini?\n</task>\n<answer>\nKucing.\n</answer>")
    assert (request.max_new_tokens, request.language, request.target) == (64, "id", "en")


@pytest.mark.parametrize("target", LANGUAGES)
def test_the_teacher_is_asked_in_the_language_that_is_wanted(target: str) -> None:
    sentence = version_request(INDONESIAN, target, 64).turns[0].content.partition("\n\n")[0]
    assert "<task>" in sentence
    assert "<answer>" in sentence
    assert is_mostly_in(sentence.replace("<task>", "").replace("<answer>", ""), target)
    assert sentence == unicodedata.normalize("NFC", sentence)


@pytest.mark.parametrize(
    "text",
    [WRITTEN, f"\n{WRITTEN}\n", WRITTEN.replace("\n", ""), WRITTEN.removesuffix("</answer>")],
    ids=["as asked", "white space around", "in one line", "without the last mark"],
)
def test_an_answer_in_the_form_asked_for_is_the_version(text: str) -> None:
    assert read_version(Answer(text, ended=True), INDONESIAN, "en") == ENGLISH


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer("<task>What", ended=False), "the teacher's is cut at max_new_tokens"),
        (Answer("", ended=False), "the teacher's is not written, its prompt is longer than the teacher's context"),
        (Answer(" \n", ended=True), "the teacher's is empty"),
        (Answer("What is this? A cat.", ended=True), "the teacher did not keep to the form asked for"),
        (Answer(f"Sure! {WRITTEN}", ended=True), "the teacher did not keep to the form asked for"),
        (Answer(f"{WRITTEN} I hope this helps.", ended=True), "the teacher did not keep to the form asked for"),
        (Answer(f"{WRITTEN}{WRITTEN}", ended=True), "the teacher did not keep to the form asked for"),
        (Answer("<task> </task><answer>A cat.</answer>", ended=True), "the teacher left a part of it empty"),
        (Answer("<task>What?</task><answer></answer>", ended=True), "the teacher left a part of it empty"),
        (
            Answer("<task>Apa ini?</task><answer>A cat.</answer>", ended=True),
            "the teacher copied it instead of translating",
        ),
        (Answer("<task>นี่คืออะไร</task><answer>แมว</answer>", ended=True), "the teacher wrote it in another script"),
    ],
)
def test_any_other_answer_is_no_version_and_says_why(answer: Answer, fault: str) -> None:
    assert read_version(answer, INDONESIAN, "en") == fault


def test_a_task_without_letters_may_be_the_same_in_both_languages() -> None:
    sum_of_two = Example((Turn("user", "2 + 2 = ?"),), "4", "th", None, Origin("rows", "/rows.jsonl", 2))
    answer = Answer("<task>2 + 2 = ?</task><answer>4</answer>", ended=True)
    assert read_version(answer, sum_of_two, "en") == Exchange("en", "2 + 2 = ?", "4")


def demonstrator(answer: Answer | None, **settings: object) -> tuple[Demonstrator, Asked]:
    made = Demonstration(source="teacher", **settings)  # type: ignore[arg-type]
    key = version_request(INDONESIAN, "en", made.max_new_tokens).key
    asked = Asked({} if answer is None else {key: answer})
    return Demonstrator(made, [INDONESIAN], Ledger(), asked), asked


def test_the_teachers_version_is_shown_beside_the_row() -> None:
    side, asked = demonstrator(Answer(WRITTEN, ended=True))
    assert side.exchanges(INDONESIAN) == [Exchange("id", "Apa ini?", "Kucing."), ENGLISH]
    assert not asked.missing
    assert not side.ledger.counts
    assert side.asked == {"id": 1}
    assert side.failed == {"id": 0}


def test_the_teacher_is_not_asked_for_what_the_data_has() -> None:
    side, asked = demonstrator(None)
    own = Example(INDONESIAN.prompt, "Kucing.", "id", Exchange("en", "What?", "Cat."), INDONESIAN.origin)
    assert [part.prompt for part in side.exchanges(own)] == ["Apa ini?", "What?"]
    assert not asked.missing


def test_a_version_that_failed_is_counted_by_language_and_reason_and_the_row_keeps_its_other_part() -> None:
    side, _ = demonstrator(Answer("no", ended=True))
    assert [part.language for part in side.exchanges(INDONESIAN)] == ["id"]
    event = "demonstration without its en part: the teacher did not keep to the form asked for"
    assert side.ledger.as_json() == {event: {"id": 1}}
    assert side.failed == {"id": 1}


def test_before_the_teacher_was_asked_the_request_is_remembered_and_nothing_is_called_a_failure() -> None:
    side, asked = demonstrator(None, languages=["same", "en", "ms"])
    assert [part.language for part in side.exchanges(INDONESIAN)] == ["id"]
    assert [request.target for request in asked.missing.values()] == ["en", "ms"]
    assert not side.ledger.counts
    assert not side.asked
