"""YAML 1.2 core scalars: what an unquoted text means."""

import pytest

from dudi_kit.recipe.scalars import LONGEST_NUMBER, read_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("+12", 12),
        ("-7", -7),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_numbers_booleans_and_null(text: str, value: object) -> None:
    read = read_scalar(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "yes",
        "on",
        "off",
        "y",
        "N",
        "1_000",
        "1:30",
        "12:30:45",
        "2024-01-01",
        "0b11",
        "e5",
        ".",
        "+",
        "nan",
        "inf",
        "tRue",
        "1e",
        "٣",
    ],
)
def test_words(text: str) -> None:
    assert read_scalar(text) == text


@pytest.mark.parametrize(
    "text", [".nan", ".inf", "-.INF", "1e999", "9" * (LONGEST_NUMBER + 1), "1." + "0" * LONGEST_NUMBER]
)
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        read_scalar(text)


def test_words_that_only_look_like_the_refused_ones() -> None:
    assert read_scalar(".nano") == ".nano"
    assert read_scalar("a" * 1000) == "a" * 1000
