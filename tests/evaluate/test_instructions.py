"""Constraints that can be counted or looked up, in every script; and the requests that ask for them."""

from typing import Any

import pytest

from dudi_kit.evaluate.instructions import KINDS, followed
from dudi_kit.evaluate.requests import NUMBERS, requests
from dudi_kit.recipe.task_files import load_task


@pytest.mark.parametrize(
    ("check", "language", "right", "wrong"),
    [
        ({"kind": "bullets", "n": 2}, "id", "- satu\n- dua", "- satu\n- dua\n- tiga"),
        ({"kind": "numbered", "n": 2}, "th", "๑. หนึ่ง\n๒. สอง", "1. หนึ่ง\n3. สาม"),
        ({"kind": "paragraphs", "n": 2}, "vi", "một\nhai\n\nba", "một\nhai"),
        ({"kind": "sentences", "n": 2}, "en", "It cost 3.50. Really?", "It cost 3.50. Really? Yes"),
        ({"kind": "sentences", "n": 2}, "my", "မိုးရွာသည်။ နေသာသည်။", "မိုးရွာသည်။"),
        ({"kind": "sentences", "n": 2}, "km", "ភ្លៀងធ្លាក់។ ថ្ងៃក្តៅ។", "ភ្លៀងធ្លាក់។"),
        ({"kind": "sentences", "n": 1}, "ta", "மழை பெய்கிறது.", "மழை. வெயில்."),
        ({"kind": "at_most_words", "n": 3}, "tl", "isa - dalawa, tatlo", "isa dalawa tatlo apat"),
        ({"kind": "at_least_words", "n": 3}, "ms", "satu dua tiga", "satu dua -"),
        ({"kind": "contains", "word": "nasi"}, "id", "Nasi goreng", "nasional"),
        ({"kind": "contains", "word": "ผัก"}, "th", "ซื้อผักสด", "ซื้อปลา"),
        ({"kind": "avoids", "word": "sega"}, "jv", "mangan roti", "mangan sega"),
        (
            {"kind": "json", "keys": ["judul", "isi"]},
            "id",
            '```json\n{"judul": "a", "isi": "b"}\n```',
            '{"judul": "a"}',
        ),
        ({"kind": "json", "keys": ["a", "b"]}, "id", '{"a": 1, "b": 2}', '{"a": 1, "b": 2} selesai'),
        ({"kind": "starts_with", "text": "Halo,"}, "su", '"Halo, kumaha"', "Eh, Halo,"),
        ({"kind": "ends_with", "text": "ຂອບໃຈ"}, "lo", "ສະບາຍດີ ຂອບໃຈ", "ຂອບໃຈ ສະບາຍດີ"),
    ],
)
def test_a_constraint_by_hand(check: dict[str, Any], language: str, right: str, wrong: str) -> None:
    assert followed(right, [check], language)
    assert not followed(wrong, [check], language)


def test_an_empty_answer_follows_nothing() -> None:
    assert not followed(" \n", [{"kind": "avoids", "word": "x"}], "en")
    assert not followed("", [], "en")


@pytest.mark.parametrize("language", load_task("instructions").languages)
def test_requests_have_their_own_ids_and_known_checks(language: str) -> None:
    found = requests(language)
    assert len(found) >= 20
    assert len({request.id for request in found}) == len({request.prompt for request in found}) == len(found)
    assert {check["kind"] for request in found for check in request.checks} <= set(KINDS)
    assert not any("{" in request.prompt for request in found)


@pytest.mark.parametrize("language", load_task("instructions").languages)
def test_a_request_names_what_is_checked(language: str) -> None:
    for request in requests(language):
        for check in request.checks:
            told = [check[key] for key in ("word", "text") if key in check] + check.get("keys", [])
            told += [str(check["n"])] if check["kind"] in NUMBERS else []
            assert told
            assert all(text in request.prompt for text in told), request.id


@pytest.mark.parametrize("language", ["th", "lo", "my", "km"])
def test_words_are_not_counted_where_no_space_parts_them(language: str) -> None:
    assert not [request for request in requests(language) if "words" in request.id]
