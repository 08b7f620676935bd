"""Answers of a teacher: found by content, kept on disk line by line, used as responses."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from dudi_kit.data.asked import Answer, Asked, Request, answer_line, nobody, read_answers
from dudi_kit.data.example import Example, Origin, Turn
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.responses import response_request, with_responses
from dudi_kit.data.script import is_mostly_in
from dudi_kit.recipe.schema.data import Responses, TeacherResponses

REQUEST = Request((Turn("user", "นี่คืออะไร"),), 16, "th", "th", "response")


def test_a_request_is_known_by_all_that_its_answer_depends_on_and_by_nothing_else() -> None:
    same = [replace(REQUEST, language="id", target="en", purpose="version"), replace(REQUEST, seed=7)]
    assert {request.key for request in same} == {REQUEST.key}, "greedy answers know no seed"
    warm = replace(REQUEST, temperature=0.5)
    others = [
        replace(REQUEST, turns=(Turn("system", "นี่คืออะไร"),)),
        replace(REQUEST, turns=(*REQUEST.turns, *REQUEST.turns)),
        replace(REQUEST, max_new_tokens=17),
        warm,
        replace(warm, seed=7),
        replace(warm, temperature=0.6),
    ]
    assert len({request.key for request in (REQUEST, *others)}) == 7


def test_a_request_survives_the_way_through_its_file() -> None:
    assert Request.from_json(REQUEST.as_json()) == REQUEST


def test_what_was_looked_up_in_vain_is_remembered_once() -> None:
    asked = Asked()
    assert asked(REQUEST) is None
    assert asked(REQUEST) is None
    assert list(asked.missing.values()) == [REQUEST]
    assert asked.lines() == [
        "the teacher is asked before training for 1 responses (th 1), 0 answers are there; until then lengths are "
        "counted without them: at most 16 tokens each, of the teacher's"
    ]


def test_a_version_waits_for_the_responses_since_it_may_be_one_of_them() -> None:
    version = replace(REQUEST, turns=(Turn("user", "Translate"),), purpose="version")
    asked = Asked()
    asked(version)
    assert len(asked.missing) == 1
    asked = Asked()
    asked(REQUEST)
    asked(version)
    assert list(asked.missing.values()) == [REQUEST]


def test_a_torn_line_is_no_answer_and_the_lines_around_it_are(tmp_path: Path) -> None:
    one, two = Answer("หนึ่ง\nบรรทัด\u2028", ended=True), Answer("two", ended=False)
    torn = answer_line("c", Answer("three", ended=True)).encode()
    file = tmp_path / "answers.jsonl"
    for cut in range(1, len(torn)):
        file.write_bytes(
            answer_line("a", one).encode() + torn[:cut].rstrip(b"}\n") + b"\n" + answer_line("b", two).encode()
        )
        assert read_answers([tmp_path / "none.jsonl", file]) == {"a": one, "b": two}


def test_the_first_file_is_believed(tmp_path: Path) -> None:
    for name in ("mine", "shared"):
        (tmp_path / name).write_text(answer_line("a", Answer(name, ended=True)))
    assert read_answers([tmp_path / "mine", tmp_path / "shared"])["a"].text == "mine"


# As responses

ROWS = [
    Example((Turn("user", f"คำถาม {number}"),), "จากข้อมูล", "th", None, Origin("rows", "/rows.jsonl", number))
    for number in (1, 2, 3, 4)
]


def answered(answers: Iterable[Answer], responses: Responses) -> tuple[list[str], Ledger]:
    settings = responses if isinstance(responses, TeacherResponses) else setting()
    keys = [response_request(row, settings).key for row in ROWS]
    ledger = Ledger()
    ask = Asked(dict(zip(keys, answers, strict=True)))
    return [row.response for row in with_responses(ROWS, responses, ask, ledger)], ledger


def setting(**values: object) -> TeacherResponses:
    return TeacherResponses.model_validate({"from": "teacher", **values})


GOOD, CUT, EMPTY = Answer(" คำตอบ\n", ended=True), Answer("คำตอ", ended=False), Answer("\n", ended=True)
LATIN = Answer("An answer", ended=True)


def test_the_teachers_answer_becomes_the_response_and_failures_leave_the_row_out_counted() -> None:
    responses, ledger = answered([GOOD, CUT, EMPTY, LATIN], "teacher")
    assert responses == ["คำตอบ", "An answer"]
    assert ledger.as_json() == {
        "teacher's response cut at max_new_tokens: row left out": {"th": 1},
        "teacher's response empty: row left out": {"th": 1},
        "teacher's response mostly in another script": {"th": 1},
    }


def test_on_failure_corpus_keeps_the_datas_own_response_counted() -> None:
    responses, ledger = answered([GOOD, CUT, EMPTY, GOOD], setting(on_failure="corpus"))
    assert responses == ["คำตอบ", "จากข้อมูล", "จากข้อมูล", "คำตอบ"]
    assert ledger.counts["teacher's response cut at max_new_tokens: the data's kept", "th"] == 1


def test_corpus_asks_nobody_and_an_unasked_row_keeps_its_response() -> None:
    asked = Asked()
    assert list(with_responses(ROWS, "corpus", asked, Ledger())) == ROWS
    assert not asked.missing
    assert list(with_responses(ROWS, "teacher", nobody, Ledger())) == ROWS


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("วันนี้อากาศดี", "th", True),
        ("weather", "th", False),
        ("iPhone แมวแมวแมว", "th", True),
        ("42 + 1!", "my", True),
        ("မြန်မာ", "my", True),
        ("ខ្មែរ", "km", True),
        ("ລາວ", "lo", True),
        ("ลาว", "lo", False),
        ("தமிழ்", "ta", True),
        ("中文", "zh", True),
        ("tiếng Việt", "vi", True),
    ],
)
def test_most_letters_tell_the_script(text: str, language: str, expected: bool) -> None:
    assert is_mostly_in(text, language) is expected
