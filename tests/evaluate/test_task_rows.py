"""Task rows: prompts in every language, worked examples, fixed draws, and what happens to rows that are wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from dudi_kit.data.example import Turn
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError
from dudi_kit.evaluate.prompts import Prompt, ask, fill, own_frame
from dudi_kit.evaluate.seahelm.metrics import METRICS
from dudi_kit.evaluate.seahelm.parsing import check_labels, check_tag, label_reader, line_reader
from dudi_kit.evaluate.task_rows import LanguageRows, Wishes, load_rows, reach
from dudi_kit.recipe.schema.task import Mode, TaskFile
from dudi_kit.recipe.task_files import load_task, shipped
from dudi_kit.recipe.task_places import Homes

SHARED = next((p / "shared/data" for p in Path(__file__).parents if (p / "shared/data").is_dir()), None)
SPOKEN = [(name, language) for name in shipped() for language in load_task(name).languages]


def text_of(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(turn.content for turn in prompt)


# --- what ships -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["instruct", "base"])
@pytest.mark.parametrize(("name", "language"), SPOKEN)
def test_every_prompt_shows_every_field_and_nothing_is_left_open(name: str, language: str, mode: Mode) -> None:
    task = load_task(name)
    frame = own_frame(task, language, mode)
    row = {field: f"<{field} of the row>" for field in task.fields}
    asked = text_of(ask(frame, fill(frame.question, row), [("<example>", "<its answer>")], mode))
    assert all(value in asked for value in row.values())
    assert "{" not in asked
    assert asked.index("<example>") < asked.index("<its answer>") < asked.index(row[task.fields[0]])
    if mode == "instruct" and task.has_labels and "A" not in frame.labels.values():
        assert all(word in asked for word in frame.labels.values())


@pytest.mark.parametrize(("name", "language"), SPOKEN)
def test_the_parser_finds_the_right_answer_in_the_right_answer(name: str, language: str) -> None:
    task = load_task(name)
    frame = own_frame(task, language, "instruct")
    check_tag(frame.answer_tag)
    words = list(frame.labels.values()) if task.has_labels else ["satu dua tiga"]
    if task.has_labels:
        check_labels(words)
    read: Any = label_reader(frame.answer_tag, words) if task.has_labels else line_reader(frame.answer_tag)
    for word in words:
        said = fill(frame.answer, {"answer_tag": frame.answer_tag, "label": word})
        assert read(said) == word
        assert read(f"**{said}**\n\nterima kasih") == word or not task.has_labels


def test_metrics_of_task_files_are_those_that_are_computed() -> None:
    assert set(TaskFile.model_fields["metric"].annotation.__args__) == set(METRICS)  # type: ignore[union-attr]


@pytest.mark.skipif(SHARED is None, reason="the real data lie beside the development checkout only")
@pytest.mark.parametrize(("name", "language"), SPOKEN)
def test_local_rows_load_in_both_modes(name: str, language: str) -> None:
    task = load_task(name)
    first = task.sources_in(language)[0]
    if not {"data", "lines", "classes", "builtin"} & first.model_fields_set:
        pytest.skip("its rows are on the hub")
    for mode in ("instruct", "base"):
        loaded = load(task, language, Wishes(mode=mode, limit=30), Homes(data=SHARED))
        assert 1 <= len(loaded.rows) <= 30 < loaded.whole + 10
        asked = {text_of(row.prompt) for row in loaded.rows}
        assert len(asked) > 0.9 * len(loaded.rows)
        if first.examples is not None and first.examples.hold_out:
            assert not set(loaded.shown) & {row.id for row in loaded.rows}


def load(task: TaskFile, language: str, wishes: Wishes, homes: Homes, ledger: Ledger | None = None) -> LanguageRows:
    return load_rows(task, [language], wishes, homes, ledger or Ledger())[language]


# --- a task of our own ------------------------------------------------------------------------------------------------


def mood(**changes: Any) -> TaskFile:
    """A task with labels in two languages, whose rows are a .jsonl each."""
    values: dict[str, Any] = {
        "task": 1,
        "name": "mood",
        "competency": "understanding",
        "description": "The mood of a text.",
        "licence": "CC0",
        "metric": "balanced_accuracy",
        "fields": ["text"],
        "shots": {"instruct": 0, "base": 2},
        "labels": {"good": "Good", "bad": "Bad"},
        "sources": [
            {
                "data": "{language}.jsonl",
                "id": "id",
                "columns": {"text": "row.0.text", "label": "label"},
                "values": {"1": "good", "0": "bad"},
                "examples": {"path": "{language}_dev.jsonl"},
            }
        ],
        "languages": {
            "en": {
                "answer_tag": "Answer:",
                "instruction": "Choose one of {labels}.",
                "format": "Write {answer_tag} $OPTION",
                "question": "Text: {text}",
            },
            "id": {
                "answer_tag": "Jawaban:",
                "instruction": "Pilih: {labels}.",
                "format": "Tulis {answer_tag} $OPTION",
                "question": "Teks: {text}",
                "labels": {"good": "Baik", "bad": "Buruk"},
            },
        },
    }
    return TaskFile.model_validate({**values, **changes})


def write(path: Path, texts: list[tuple[str, Any]]) -> None:
    rows = [{"id": f"r{i}", "row": [{"text": text}], "label": label} for i, (text, label) in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def home(tmp_path: Path) -> Homes:
    for language in ("en", "id"):
        write(tmp_path / f"{language}.jsonl", [(f"text {i} {{label}}", int(i % 4 == 0)) for i in range(100)])
        write(tmp_path / f"{language}_dev.jsonl", [("sunny", 1), ("rainy", 0), ("text 3 {label}", 0)])
    return Homes(data=tmp_path)


def test_a_conversation_by_hand(home: Homes) -> None:
    row = load(mood(), "id", Wishes(), home).rows[0]
    assert row.prompt == (Turn("user", "Pilih: Baik, Buruk.\n\nTulis Jawaban: $OPTION\n\nTeks: text 0 {label}"),)
    assert (row.references, row.choices, row.gold) == (("Baik",), ("Baik", "Buruk"), 0)
    assert (row.opening, row.answers) == ("", ("Jawaban: Baik", "Jawaban: Buruk"))


def test_a_text_to_complete_by_hand(home: Homes) -> None:
    row = load(mood(), "id", Wishes(mode="base"), home).rows[1]
    assert row.prompt == (
        "Pilih: Baik, Buruk.\n\nTeks: sunny\nJawaban: Baik\n\nTeks: rainy\nJawaban: Buruk\n\n"
        "Teks: text 1 {label}\nJawaban:"
    )
    assert (row.opening, row.answers, row.gold) == ("Jawaban:", (" Baik", " Buruk"), 1)


def test_examples_of_a_conversation_are_turns(home: Homes) -> None:
    row = load(mood(), "en", Wishes(shots=1), home).rows[0]
    assert [turn.role for turn in row.prompt if isinstance(turn, Turn)] == ["user", "assistant", "user"]
    assert text_of(row.prompt).startswith("Choose one of Good, Bad.\n\nWrite Answer: $OPTION\n\nText: ")


def test_an_example_that_is_a_test_row_is_never_shown(home: Homes) -> None:
    ledger = Ledger()
    loaded = load(mood(), "id", Wishes(mode="base"), home, ledger)
    assert set(loaded.shown) == {"r0", "r1"}
    assert sum(ledger.counts.values()) == 1
    with pytest.raises(DataError, match="3 worked examples wanted in id, and 2 are there"):
        load(mood(), "id", Wishes(shots=3), home)


def test_held_out_examples_are_not_scored_whatever_the_shots(home: Homes) -> None:
    source = mood().model_dump(mode="json", exclude_defaults=True)["sources"][0]
    task = mood(sources=[{**source, "examples": {"hold_out": 6}}])
    none, some = (load(task, "en", Wishes(shots=shots), home) for shots in (0, 4))
    assert [row.id for row in none.rows] == [row.id for row in some.rows]
    assert (none.whole, len(some.shown)) == (94, 4)
    assert not {row.id for row in some.rows} & set(some.shown)


def test_a_limit_keeps_shares_labels_and_the_baseline(home: Homes) -> None:
    loaded = load(mood(), "en", Wishes(limit=20), home)
    assert [row.references[0] for row in loaded.rows].count("Good") == 5
    assert (loaded.whole, loaded.labels) == (100, ("Good", "Bad"))
    one = load(mood(), "en", Wishes(limit=1), home)
    assert one.labels == ("Good", "Bad")


def test_a_limit_draws_the_same_rows_from_shuffled_ones(home: Homes, tmp_path: Path) -> None:
    before = {row.id for row in load(mood(), "en", Wishes(limit=20), home).rows}
    file = tmp_path / "en.jsonl"
    file.write_text("".join(reversed(file.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")
    assert {row.id for row in load(mood(), "en", Wishes(limit=20), home).rows} == before
    assert {row.id for row in load(mood(), "en", Wishes(limit=20, seed=1), home).rows} != before


def test_one_bad_row_in_a_hundred_is_counted_and_two_are_an_error(home: Homes, tmp_path: Path) -> None:
    ledger = Ledger()
    rows: list[tuple[Any, Any]] = [(f"text {i}", 1) for i in range(99)]
    write(tmp_path / "en.jsonl", [*rows, ("text", 7)])
    assert load(mood(), "en", Wishes(), home, ledger).whole == 99
    assert ledger.as_json() == {"row of task mood left out: unknown label": {"en": 1}}
    write(tmp_path / "en.jsonl", [*rows, ("text", 7), (None, 1)])
    with pytest.raises(DataError, match=r"en\.jsonl:100 .*expected 1 or 0, found '7'\. 2 of 101"):
        load(mood(), "en", Wishes(), home)


def test_an_empty_split_is_an_error(home: Homes, tmp_path: Path) -> None:
    write(tmp_path / "en.jsonl", [])
    with pytest.raises(DataError, match="has no rows in en"):
        load(mood(), "en", Wishes(), home)


def test_a_double_id_is_an_error(home: Homes, tmp_path: Path) -> None:
    file = tmp_path / "en.jsonl"
    file.write_text(file.read_text(encoding="utf-8") * 2, encoding="utf-8")
    with pytest.raises(DataError, match="'r0' stands in row 1 already"):
        load(mood(), "en", Wishes(), home)


def test_a_language_without_data_names_what_was_looked_for(home: Homes, tmp_path: Path) -> None:
    (tmp_path / "id.jsonl").unlink()
    with pytest.raises(DataError, match=r"no rows in id: looked for .*id\.jsonl"):
        load(mood(), "id", Wishes(), home)
    with pytest.raises(DataError, match=r"evaluation\.data_home is not set"):
        load(mood(), "id", Wishes(), Homes())


def test_lines_that_belong_together_are_as_many(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("satu\ndua\n", encoding="utf-8")
    (tmp_path / "b").write_text("one\n", encoding="utf-8")
    source = {"lines": {"text": "a", "label": "b"}, "columns": {"text": "text", "label": "label"}}
    task = mood(sources=[source], metric="chrf++", labels=None, shots={"instruct": 0, "base": 0})
    with pytest.raises(DataError, match=r"has 2, .* has 1"):
        load(task, "en", Wishes(), Homes(data=tmp_path))


def test_reaching_into_a_row() -> None:
    row = {"a": [{"b": "x"}], "c.d": "y"}
    assert (reach(row, "a.0.b"), reach(row, "c.d")) == ("x", "y")
    with pytest.raises(Exception, match="'1' is not in list"):
        reach(row, "a.1.b")
