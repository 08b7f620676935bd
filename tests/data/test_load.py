import csv
import json
import sys
import types
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import TypeAdapter

from dudi_kit.data.example import Example, Exchange, Origin, Turn
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.load import load_examples
from dudi_kit.data.sources import read_hub_table
from dudi_kit.errors import DataError, EnvironmentLack, Exit, HubUnreachable
from dudi_kit.recipe.schema.data import Dataset, HubRows

DATASET: TypeAdapter[Any] = TypeAdapter(Dataset)

THAI = {"prompt": "สวัสดี", "response": "สวัสดีครับ"}
TAMIL = {"prompt": "நீ எங்கே?", "response": "வீட்டில்"}


def load(ledger: Ledger | None = None, on_bad_row: str = "error", **settings: Any) -> list[Example]:
    dataset = DATASET.validate_python(settings)
    return load_examples("chat", dataset, on_bad_row=on_bad_row, ledger=ledger or Ledger())  # type: ignore[arg-type]


def jsonl(path: Path, *rows: Any) -> str:
    path.write_text(
        "".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows), "utf-8"
    )
    return str(path)


# The four kinds of file


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_kind_of_file_gives_the_same_examples(tmp_path: Path, suffix: str):
    path, rows = tmp_path / f"rows{suffix}", [THAI, {"prompt": "a, b", "response": "c"}]
    if suffix == ".jsonl":
        jsonl(path, *rows)
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["prompt", "response"], delimiter="," if suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    first, second = load(path=str(path), language="th")
    line = 1 if suffix in (".jsonl", ".parquet") else 2
    assert first == Example((Turn("user", "สวัสดี"),), "สวัสดีครับ", "th", None, Origin("chat", str(path), line))
    assert second.prompt[0].content == "a, b"
    assert second.origin.row == line + 1


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes("﻿prompt,response\r\nsatu,dua\r\n".encode())
    assert load(path=str(path), language="id")[0].response == "dua"


def test_quoted_line_breaks_keep_the_line_numbers_right(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,response\n"satu\ndua",tiga\nempat,lima\n')
    assert [e.origin.row for e in load(path=str(path), language="id")] == [2, 4]


def test_an_open_quote_in_tsv_is_a_character(tmp_path: Path):
    path = tmp_path / "rows.tsv"
    path.write_text('prompt\tresponse\n"halo\tya\nsatu\tdua\n')
    assert [e.prompt[0].content for e in load(path=str(path), language="id")] == ['"halo', "satu"]


def test_an_open_quote_in_csv_is_an_error_at_its_row(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,response\nsatu,dua\n"halo,ya\nsatu,dua\n')
    with pytest.raises(DataError, match=r"rows\.csv:3 \(chat\): expected 2 cells, found"):
        load(path=str(path), language="id")


def test_line_separators_inside_json_strings_end_no_line(tmp_path: Path):
    path = jsonl(tmp_path / "rows.jsonl", {"prompt": "a\u2028b", "response": "c\x85d"}, "", THAI)
    assert [e.origin.row for e in load(path=path, language="en")] == [1, 3]


def test_texts_are_nfc_and_stripped_but_zero_width_spaces_stay(tmp_path: Path):
    decomposed = unicodedata.normalize("NFD", "tiếng Việt")
    path = jsonl(tmp_path / "rows.jsonl", {"prompt": f"  {decomposed}\n", "response": "ភាសា\u200bខ្មែរ\u200b"})
    (example,) = load(path=path, language="vi")
    assert example.prompt[0].content == "tiếng Việt"
    assert example.response == "ភាសា\u200bខ្មែរ\u200b"


# Files that can't be used as a whole


def test_missing_file_folder_and_unknown_type(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.jsonl: no such file"):
        load(path=str(tmp_path / "gone.jsonl"), language="th")
    with pytest.raises(DataError, match="is a folder"):
        load(path=str(tmp_path), language="th")
    (tmp_path / "rows.json").write_text("[]")
    with pytest.raises(DataError, match=r"'\.json', only \.jsonl"):
        load(path=str(tmp_path / "rows.json"), language="th")


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", ""), ("a.csv", ""), ("a.tsv", "prompt\tresponse\n")])
def test_empty_file(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"dataset chat: no rows left\. 0 read from"):
        load(path=str(tmp_path / name), language="th")


def test_not_utf8_names_file_row_and_column(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"prompt,response\nhalo,ya\ncaf\xe9,ya\n")
    with pytest.raises(DataError, match=r"rows\.csv:3 \(chat\): column 'prompt': expected UTF-8"):
        load(path=str(path), language="id")
    path.write_text("prompt,response\na,b\n", "utf-16")
    with pytest.raises(DataError, match="is UTF-16"):
        load(path=str(path), language="id")


def test_lone_surrogates_of_json_are_refused(tmp_path: Path):
    path = jsonl(tmp_path / "rows.jsonl", '{"prompt": "\\ud83d", "response": "a"}')
    with pytest.raises(DataError, match="expected UTF-8"):
        load(path=path, language="en")


def test_a_broken_parquet_file_and_a_header_with_a_column_twice(tmp_path: Path):
    (tmp_path / "rows.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a Parquet file"):
        load(path=str(tmp_path / "rows.parquet"), language="th")
    (tmp_path / "rows.csv").write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="column 'a' more than once"):
        load(path=str(tmp_path / "rows.csv"), language="th")


# Bad rows

BAD = [
    ('{"prompt": "a", }', r"expected one JSON object a line, found .* at column \d+"),
    ("[1]", "found a list"),
    ({"prompt": "a"}, r"no column 'response'; the row has 'prompt'"),
    ({"prompt": "a", "response": None}, r"column 'response': expected a text, found null"),
    ({"prompt": "a", "response": 3}, "found the number 3"),
    ({"prompt": ["a"], "response": "b"}, "column 'prompt': expected a text, found a list of 1"),
    ({"prompt": "a", "response": " \n"}, "column 'response': expected a text, found an empty one"),
]


@pytest.mark.parametrize(("row", "message"), BAD)
def test_a_bad_row_names_file_line_column_and_what_was_found(tmp_path: Path, row: Any, message: str):
    path = jsonl(tmp_path / "rows.jsonl", THAI, row)
    with pytest.raises(DataError, match=rf"rows\.jsonl:2 \(chat\): .*{message}.*on_bad_row: skip"):
        load(path=path, language="th")


@pytest.mark.parametrize(("row", "message"), BAD)
def test_a_bad_row_is_skipped_and_counted(tmp_path: Path, row: Any, message: str):
    ledger, path = Ledger(), jsonl(tmp_path / "rows.jsonl", row, THAI)
    assert len(load(ledger, "skip", path=path, language="th")) == 1
    ((event, counts),) = ledger.as_json().items()
    assert event.startswith("bad row left out: ")
    assert counts == {"th": 1}
    assert ledger.cases[event] == [f"{path}:1"]


def test_only_bad_rows_is_an_error_even_under_skip(tmp_path: Path):
    path = jsonl(tmp_path / "rows.jsonl", "{", "{")
    with pytest.raises(DataError, match=r"no rows left\. 2 read from .*, bad row left out: not JSON 2\."):
        load(on_bad_row="skip", path=path, language="th")


def test_a_row_with_too_few_cells(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,response\na\n")
    with pytest.raises(
        DataError, match=r"rows\.csv:2 \(chat\): expected 2 cells as in the header \(prompt, response\), found 1"
    ):
        load(path=str(path), language="th")


# Chat

SYSTEM, USER, ANSWER = ({"role": r, "content": c} for r, c in [("system", "S"), ("user", "U"), ("assistant", "A")])


def test_chat_gives_all_turns_before_the_answer(tmp_path: Path):
    path = jsonl(
        tmp_path / "rows.jsonl", {"messages": [SYSTEM, USER, ANSWER, USER, {"role": "assistant", "content": "Z"}]}
    )
    (example,) = load(path=path, language="th", format={"type": "chat"})
    assert [turn.role for turn in example.prompt] == ["system", "user", "assistant", "user"]
    assert example.response == "Z"


def test_chat_of_parquet(tmp_path: Path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"messages": [USER, ANSWER]}]), tmp_path / "rows.parquet")
    (example,) = load(path=str(tmp_path / "rows.parquet"), language="th", format={"type": "chat"})
    assert example.response == "A"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([USER], "expected a user's message and the assistant's answer at the end, found user"),
        ([], "found no message"),
        ([USER, ANSWER, ANSWER], "found assistant then assistant"),
        ([USER, SYSTEM, USER, ANSWER], "`system` in the first place only"),
        (
            [{"role": "human", "content": "U"}, ANSWER],
            "message 1: expected a role of system, user, assistant, found the text 'human'",
        ),
        ([{"role": "user", "content": [{"type": "image"}]}, ANSWER], "message 1: expected a text as content"),
        ([{"from": "human", "value": "U"}, ANSWER], "found a mapping with from, value"),
        (json.dumps([USER, ANSWER]), r"expected a list of \{role, content\}, found the text"),
        ([USER, {"role": "assistant", "content": ""}], "message 2: expected a text, found an empty one"),
    ],
)
def test_bad_chats(tmp_path: Path, messages: Any, message: str):
    path = jsonl(tmp_path / "rows.jsonl", {"messages": messages})
    with pytest.raises(DataError, match=message):
        load(path=path, language="th", format={"type": "chat"})


# Columns and templates


def test_a_system_column_may_be_empty_in_a_row(tmp_path: Path):
    path = jsonl(tmp_path / "rows.jsonl", THAI | {"s": "สุภาพ"}, THAI | {"s": None}, THAI | {"s": ""})
    examples = load(path=path, language="th", format={"system": "s"})
    assert [len(example.prompt) for example in examples] == [2, 1, 1]
    assert examples[0].prompt[0] == Turn("system", "สุภาพ")


def test_templates_by_language_with_a_numeric_label(tmp_path: Path):
    path = jsonl(
        tmp_path / "rows.jsonl", {"text": "enak", "label": 1, "lang": "id"}, {"text": "ngon", "label": 0, "lang": "vi"}
    )
    template = {
        "type": "template",
        "prompt": {"id": "{{ text }}\nSentimen:", "vi": "{{ text }}\nCảm xúc:"},
        "response": "{{ ['neg', 'pos'][label] }}",
    }
    examples = load(path=path, language={"column": "lang"}, format=template)
    assert [(e.prompt[0].content, e.response) for e in examples] == [
        ("enak\nSentimen:", "pos"),
        ("ngon\nCảm xúc:", "neg"),
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ txt }}", r"rows\.jsonl:1 \(chat\): format\.prompt: 'txt' is undefined; the row has 'prompt', 'response'"),
        ("{{ prompt", r"dataset chat: format\.prompt: the template .* can't be used"),
        ({"id": "{{ prompt }}"}, "no template for 'th', only for id"),
    ],
)
def test_bad_templates(tmp_path: Path, template: Any, message: str):
    path = jsonl(tmp_path / "rows.jsonl", THAI)
    with pytest.raises(DataError, match=message):
        load(path=path, language="th", format={"type": "template", "prompt": template, "response": "{{ response }}"})


# Languages, where, limit


def test_language_in_a_path_stands_for_each_language(tmp_path: Path):
    jsonl(tmp_path / "th.jsonl", THAI)
    jsonl(tmp_path / "ta.jsonl", TAMIL)
    examples = load(path=f"{tmp_path}/{{language}}.jsonl", languages=["th", "ta"])
    assert [(e.language, Path(e.origin.file).name) for e in examples] == [("th", "th.jsonl"), ("ta", "ta.jsonl")]


def test_language_settings_that_contradict_or_lack(tmp_path: Path):
    path = jsonl(tmp_path / "th.jsonl", THAI)
    with pytest.raises(DataError, match="language of the rows is not given"):
        load(path=path)
    with pytest.raises(DataError, match="no languages are given"):
        load(path=f"{tmp_path}/{{language}}.jsonl", language="th")
    with pytest.raises(DataError, match="both say the language"):
        load(path=f"{tmp_path}/{{language}}.jsonl", language="th", languages=["th"])


def test_unknown_language_code_in_a_column_names_ours(tmp_path: Path):
    path = jsonl(tmp_path / "rows.jsonl", THAI | {"lang": "fil"})
    with pytest.raises(
        DataError,
        match=r"rows\.jsonl:1 \(chat\): column 'lang': expected one of .* found 'fil'; it is written 'tl' here",
    ):
        load(path=path, language={"column": "lang"})


def test_rows_left_out_are_counted_by_language(tmp_path: Path):
    rows = [
        THAI | {"lang": lang, "task": task} for lang, task in [("th", 1), ("th", 1), ("th", 2), ("ta", 1), ("ban", 1)]
    ]
    ledger, path = Ledger(), jsonl(tmp_path / "rows.jsonl", *rows)
    settings = {"language": {"column": "lang"}, "languages": ["th", "ta"], "where": {"task": "1"}, "limit": 1}
    assert [e.origin.row for e in load(ledger, path=path, **settings)] == [1, 4]
    assert ledger.as_json() == {
        "filtered by languages": {"ban": 1},
        "filtered by where": {"th": 1},
        "over the limit": {"th": 1},
    }


def test_limit_counts_examples_not_bad_rows(tmp_path: Path):
    path = jsonl(tmp_path / "rows.jsonl", "{", THAI, THAI)
    assert [e.origin.row for e in load(on_bad_row="skip", path=path, language="th", limit=1)] == [2]


def test_a_language_asked_for_without_rows_is_an_error(tmp_path: Path):
    path = jsonl(tmp_path / "rows.jsonl", THAI | {"lang": "th"}, THAI | {"lang": "fil"})
    with pytest.raises(DataError, match=r"no rows left in tl\. 2 read from .*, filtered by languages 1\."):
        load(path=path, language={"column": "lang"}, languages=["th", "tl"])


def test_where_on_a_column_that_is_not_there(tmp_path: Path):
    with pytest.raises(DataError, match="no column 'topic'"):
        load(path=jsonl(tmp_path / "rows.jsonl", THAI), language="th", where={"topic": "x"})


# English


def test_english_version_in_the_row_itself(tmp_path: Path):
    path = jsonl(tmp_path / "rows.jsonl", THAI | {"english_prompt": "Hi", "english_response": "Hello"})
    (example,) = load(path=path, language="th", english={})
    assert example.english == Exchange("en", "Hi", "Hello")


def test_english_version_of_another_file_joined_by_key(tmp_path: Path):
    english = jsonl(tmp_path / "en.jsonl", {"id": 7, "prompt": "Hi", "response": "Hello"})
    path = jsonl(tmp_path / "rows.jsonl", THAI | {"id": "7"})
    settings = {"path": english, "key": "id", "format": {"prompt": "prompt", "response": "response"}}
    (example,) = load(path=path, language="th", english=settings)
    assert example.english == Exchange("en", "Hi", "Hello")


def test_missing_and_double_keys(tmp_path: Path):
    row = {"id": 7, "prompt": "Hi", "response": "Hello"}
    english = jsonl(tmp_path / "en.jsonl", row, row)
    path = jsonl(tmp_path / "rows.jsonl", THAI | {"id": 8}, THAI | {"id": 7})
    settings = {"path": english, "key": "id", "format": {}}
    with pytest.raises(DataError, match=r"en\.jsonl:2 \(chat\): column 'id': '7' stands in row 1 already"):
        load(path=path, language="th", english=settings)
    ledger = Ledger()
    assert [e.origin.row for e in load(ledger, "skip", path=path, language="th", english=settings)] == [2]
    assert ledger.as_json() == {
        "bad row left out: duplicate key": {"en": 1},
        "bad row left out: no English version": {"th": 1},
    }
    jsonl(tmp_path / "en.jsonl", row)
    with pytest.raises(DataError, match=r"rows\.jsonl:1 \(chat\): column 'id': '8' does not stand in .*en\.jsonl"):
        load(path=path, language="th", english=settings)


PARTLY = [
    THAI | {"english_prompt": "Hi", "english_response": "Hello"},
    THAI,
    THAI | {"english_prompt": None, "english_response": None},
    THAI | {"english_prompt": "Hi", "english_response": " "},
]
"""An English version that is there, one whose columns are missing, one that is null, one that is empty."""


def test_rows_without_their_english_version_are_refused_with_the_way_to_keep_them(tmp_path: Path):
    path = jsonl(tmp_path / "rows.jsonl", *PARTLY)
    with pytest.raises(
        DataError, match=r"rows\.jsonl:2 \(chat\): no column 'english_prompt'.*english\.required: false"
    ):
        load(path=path, language="th", english={})
    ledger = Ledger()
    assert [e.origin.row for e in load(ledger, "skip", path=path, language="th", english={})] == [1]
    assert sum(ledger.counts.values()) == 3


def test_rows_that_may_lack_their_english_version_are_kept_and_counted(tmp_path: Path):
    path, ledger = jsonl(tmp_path / "rows.jsonl", *PARTLY), Ledger()
    examples = load(ledger, path=path, language="th", english={"required": False})
    assert [example.english is not None for example in examples] == [True, False, False, False]
    assert ledger.as_json() == {"row without an English version": {"th": 3}}
    assert f"first: {path}:2, {path}:3, {path}:4" in ledger.lines()[0]


def test_rows_of_one_item_share_its_key_and_a_second_row_of_a_language_is_refused(tmp_path: Path):
    rows = [THAI | {"n": 7, "l": "th"}, TAMIL | {"n": 7, "l": "ta"}, THAI | {"n": 8, "l": "th"}]
    path = jsonl(tmp_path / "rows.jsonl", *rows, THAI | {"n": 7, "l": "th"})
    with pytest.raises(DataError, match=r"rows\.jsonl:4 \(chat\): column 'n': '7' stands in row 1 of th already"):
        load(path=path, language={"column": "l"}, key="n")
    examples = load(Ledger(), "skip", path=path, language={"column": "l"}, key="n")
    assert [(example.item, example.language) for example in examples] == [("7", "th"), ("7", "ta"), ("8", "th")]


def test_english_path_needs_a_key(tmp_path: Path):
    with pytest.raises(DataError, match=r"english\.path needs english\.key"):
        load(path=jsonl(tmp_path / "rows.jsonl", THAI), language="th", english={"path": "/en.jsonl"})


# The corpus that ships, and the hub


def test_builtin_rows_bring_language_and_english_version(monkeypatch: pytest.MonkeyPatch):
    english = {"english_prompt": "Hi", "english_response": "Hello"}
    rows = [THAI | english | {"id": "a", "language": "th", "task": "greet"}]
    rows.append(TAMIL | english | {"id": "b", "language": "ta", "task": "where"})
    module = types.SimpleNamespace(rows=lambda split: iter(rows if split == "dev" else []))
    monkeypatch.setitem(sys.modules, "dudi_kit.data.builtin", module)  # type: ignore[arg-type]
    (example,) = load(builtin="dev", languages=["th"], where={"task": "greet"})
    assert example.language == "th"
    assert example.english == Exchange("en", "Hi", "Hello")
    assert example.origin == Origin("chat", "builtin:dev", 1)
    assert example.item == "a"


def test_hub_rows_ask_for_the_pinned_revision(monkeypatch: pytest.MonkeyPatch):
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or [THAI])
    (example,) = load(hub="owner/name", revision="abc", subset="{language}", languages=["th"])
    assert asked == [(("owner/name", "th"), {"split": "train", "revision": "abc"})]
    assert example.origin == Origin("chat", "hub:owner/name/th", 1)


class Fetched(list[Any]):
    """A table whose library says from which commit it has been."""

    def __init__(self, commit: str) -> None:
        super().__init__([THAI])
        address = f"hf://datasets/owner/name@{commit}/th/train.parquet"
        self.info = types.SimpleNamespace(download_checksums={address: {}})


def test_a_commit_is_not_read_from_a_cache_of_another(monkeypatch: pytest.MonkeyPatch):
    """Offline, `datasets` reads the newest that it has of a dataset, whatever revision it is asked for."""
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: Fetched("a" * 40))
    for revision in ("a" * 40, "main"):
        dataset = HubRows(hub="owner/name", revision=revision, language="th")
        assert read_hub_table(dataset, None).commit == "a" * 40
    with pytest.raises(HubUnreachable, match=r"commit bbbbbbbbbbbb, and the local cache holds aaaaaaaaaaaa"):
        load(hub="owner/name", revision="b" * 40, language="th")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ConnectionError("no route"), EnvironmentLack, "the hub can't be reached.*give its path"),
        (OSError(28, "No space left on device"), EnvironmentLack, "no space left"),
        (ValueError("Unknown split 'x'. Should be one of ['train']"), DataError, "Should be one of"),
    ],
)
def test_failures_of_the_hub(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type, message: str):
    import datasets

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(kind, match=f"owner/name.*{message}") as caught:
        load(hub="owner/name", revision="abc", language="th")
    assert caught.value.exit_code == (Exit.ENVIRONMENT if kind is EnvironmentLack else Exit.INVALID)


# Label sets


def test_a_dataset_or_a_column_says_which_labels_the_responses_are(tmp_path: Path):
    rows = [{**THAI, "kind": "sentiment"}, {**THAI, "kind": "qa"}]
    settings = {"path": jsonl(tmp_path / "a.jsonl", *rows), "language": "th"}
    assert [example.labels for example in load(**settings)] == [None, None]
    assert [example.labels for example in load(**settings, labels="topic")] == ["topic", "topic"]
    assert [example.labels for example in load(**settings, labels={"column": "kind"})] == ["sentiment", "qa"]


def test_a_row_without_the_column_of_its_labels_is_a_bad_row(tmp_path: Path):
    with pytest.raises(DataError, match=r"a\.jsonl:1 .*no column 'kind'"):
        load(path=jsonl(tmp_path / "a.jsonl", THAI), language="th", labels={"column": "kind"})
