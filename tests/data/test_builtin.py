import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from dudi_kit.data.builtin import LANGUAGES, SIZES, SPLITS, TASKS, corpus, items, rows
from dudi_kit.recipe import languages

HELD_OUT = ("dev", "test")
SCRIPTS = {"th": "THAI", "ta": "TAMIL", "my": "MYANMAR"}


@cache
def read(split: str) -> tuple[dict[str, str], ...]:
    return tuple(rows(split))


def all_rows() -> Iterator[dict[str, str]]:
    return (row for split in SPLITS for row in read(split))


def patterns_and_phrases(language: str) -> list[str]:
    def leaves(node: object) -> Iterator[str]:
        for value in node.values() if isinstance(node, dict) else ():
            yield from leaves(value) if isinstance(value, dict) else [value]

    return list(leaves(corpus(language)))


def concepts(words: dict) -> dict:
    """Its sections in order, with their keys; and the lines that each verb has."""
    lines = {verb: list(patterns) for verb, patterns in words["verbs"].items()}
    return {section: list(phrases) for section, phrases in words.items()} | {"verbs": lines}


# The files


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_corpus_file_has_the_concepts_of_english(language):
    assert concepts(corpus(language)) == concepts(corpus("en"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_corpus_file_is_text_in_nfc_without_stray_spaces(language):
    for phrase in patterns_and_phrases(language):
        assert isinstance(phrase, str), f"{phrase!r} is no text; put it in quotes"
        assert phrase == unicodedata.normalize("NFC", phrase)
        assert phrase == " ".join(phrase.split()) != ""


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("section", ["people", "times", "things", "objects", "labels", "topics"])
def test_two_concepts_have_two_phrases(language, section):
    said = Counter(corpus(language)[section].values())
    assert [phrase for phrase, times in said.items() if times > 1] == []


# The rows


@pytest.mark.parametrize("split", SPLITS)
def test_every_language_has_the_declared_count_of_each_task(split):
    counted = Counter((row["language"], row["task"]) for row in read(split))
    declared = {
        (language, task): getattr(SIZES[task], split)
        for language in LANGUAGES
        for task in TASKS
        if (language, task) != ("en", "translate")
    }
    assert counted == declared


def test_every_language_is_one_that_recipes_know():
    assert set(LANGUAGES) <= set(languages.LANGUAGES)


def test_no_prompt_occurs_twice_in_a_language():
    counted = Counter((row["language"], row["prompt"]) for row in all_rows())
    assert [prompt for prompt, times in counted.items() if times > 1] == []


def test_ids_name_one_item_of_one_split():
    counted = Counter((row["language"], row["id"]) for row in all_rows())
    assert set(counted.values()) == {1}


@pytest.mark.parametrize("split", HELD_OUT)
def test_no_held_out_composition_occurs_in_another_split(split):
    others = {composition(item) for other in SPLITS if other != split for item in items(other)}
    assert others.isdisjoint(composition(item) for item in items(split))


def composition(item) -> tuple:
    """What is held out; topic and translate share theirs, and the order in which facts are told does not count."""
    if item.task == "qa":
        verb, *told = item.composition
        return "qa", verb, frozenset(zip(told[::2], told[1::2], strict=True))
    return "sentiment" if item.task == "sentiment" else "event", item.composition


@pytest.mark.parametrize("split", HELD_OUT)
def test_no_held_out_prompt_or_sentence_pair_occurs_in_train(split):
    trained = {(row["language"], row["prompt"]) for row in read("train")}
    assert trained.isdisjoint((row["language"], row["prompt"]) for row in read(split))
    answers = {row["response"] for row in read("train") if row["task"] == "translate"}
    assert answers.isdisjoint(row["response"] for row in read(split) if row["task"] == "translate")


@pytest.mark.parametrize("split", HELD_OUT)
@pytest.mark.parametrize("task", TASKS)
def test_every_concept_and_manner_of_a_held_out_row_is_trained_on_in_its_task(split, task):
    def parts(name: str) -> set[str]:
        return {part for item in items(name) if item.task == task for part in item.composition + item.manner}

    assert parts(split) <= parts("train")


@pytest.mark.parametrize("split", HELD_OUT)
@pytest.mark.parametrize("task", ["topic", "translate"])
def test_every_verb_with_its_object_is_trained_on_with_another_person(split, task):
    def events(name: str) -> set[tuple[str, ...]]:
        return {item.composition[1:] for item in items(name) if item.task == task}

    assert events(split) <= events("train")


@pytest.mark.parametrize("split", HELD_OUT)
@pytest.mark.parametrize("language", [code for code in LANGUAGES if code != "th"])  # Thai: concepts only, no spaces
def test_every_phrase_of_a_held_out_prompt_is_trained_on(split, language):
    def phrases(name: str) -> set[str]:
        prompts = (row["prompt"] for row in read(name) if row["language"] == language)
        return {phrase.strip(".?") for prompt in prompts for phrase in prompt.casefold().split()}

    assert phrases(split) <= phrases("train")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_half_of_the_sentiments_are_positive(split, language):
    labels = Counter(
        row["response"] for row in read(split) if (row["task"], row["language"]) == ("sentiment", language)
    )
    half = SIZES["sentiment"]._asdict()[split] // 2
    assert labels == dict.fromkeys(corpus(language)["labels"].values(), half)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_topics_have_equal_shares(split, language):
    labels = Counter(row["response"] for row in read(split) if (row["task"], row["language"]) == ("topic", language))
    topics = corpus(language)["topics"].values()
    assert labels == {topic: SIZES["topic"]._asdict()[split] // len(topics) for topic in topics}


@pytest.mark.parametrize("split", SPLITS)
def test_half_of_the_translations_go_each_way(split):
    ways = Counter(item.manner[-1] for item in items(split) if item.task == "translate")
    assert ways["to_english"] == ways["from_english"]


def test_negation_turns_the_label():
    by_id = {row["id"]: row["response"] for row in read("train") if row["language"] == "en"}
    assert by_id["sentiment/game.confusing.very"] == "negative"
    assert by_id["sentiment/game.confusing.not"] == "positive"


def test_an_answer_is_in_its_prompt_and_changes_with_the_question():
    answers: dict[tuple[str, str], set[str]] = {}
    for row in (row for row in all_rows() if row["task"] == "qa"):
        assert row["response"] in row["prompt"]
        stem, _, _ = row["id"].rpartition(".")
        answers.setdefault((row["language"], stem), set()).add(row["response"])
    assert {len(pair) for pair in answers.values()} == {2}


def test_texts_are_in_nfc_whole_and_without_open_slots():
    for row in all_rows():
        for column, text in row.items():
            assert text, (row["id"], column)
            assert text == unicodedata.normalize("NFC", text) == " ".join(text.split())
            assert not re.search(r"[{}\[\]]", text), text


@pytest.mark.parametrize("language", SCRIPTS)
def test_rows_are_written_in_the_script_of_their_language(language):
    for row in all_rows():
        if row["language"] != language:
            continue
        own = {"to_english": row["prompt"], "from_english": row["response"]}.get(
            row["id"].rpartition(".")[2], row["prompt"] + row["response"]
        )
        letters = {unicodedata.name(letter).split()[0] for letter in own if letter.isalpha()}
        assert letters == {SCRIPTS[language]}, own


@pytest.mark.parametrize("language", ["th", "my"])
def test_thai_and_burmese_sentences_have_no_western_full_stop(language):
    for row in all_rows():
        if row["language"] == language and row["task"] != "translate":
            assert not re.search(r"[.?]", row["prompt"] + row["response"])


@pytest.mark.parametrize("split", SPLITS)
def test_rows_of_an_item_are_parallel_in_all_its_languages(split):
    by_item: dict[str, list[dict[str, str]]] = {}
    for row in read(split):
        by_item.setdefault(row["id"], []).append(row)
    for item_id, versions in by_item.items():
        first = versions[0]
        expected = LANGUAGES[1:] if first["task"] == "translate" else LANGUAGES
        assert tuple(row["language"] for row in versions) == expected, item_id
        if first["task"] == "translate":
            to_english = item_id.endswith("to_english")
            english = {row["response" if to_english else "english_prompt"].split(": ")[-1] for row in versions}
            assert len(english) == 1, item_id
            assert to_english or all(row["prompt"].endswith(*english) for row in versions)
        else:
            english = {(row["english_prompt"], row["english_response"]) for row in versions}
            assert english == {(first["prompt"], first["response"])}, "English repeats itself in the English columns"


def test_english_columns_of_a_translation_change_only_the_instruction():
    row = next(row for row in read("train") if row["language"] == "id" and row["id"].endswith("from_english"))
    assert row["prompt"].startswith("Terjemahkan ke dalam bahasa Indonesia: ")
    assert row["english_prompt"].startswith("Translate into Indonesian: ")
    assert row["prompt"].partition(": ")[2] == row["english_prompt"].partition(": ")[2]
    assert row["english_response"] == row["response"]


@pytest.mark.parametrize("split", SPLITS)
def test_two_calls_give_the_same_rows(split):
    assert list(rows(split)) == list(rows(split))


def test_the_split_of_a_composition_is_the_same_on_every_machine():
    assert [item.id for item in items("test")[:3]] == [
        "translate/dewi.go.manila.on_monday.to_english",
        "topic/linh.meet.dentist.on_sunday",
        "translate/rosa.plant.flowers.today.to_english",
    ]


def test_the_first_rows_of_train_have_all_tasks():
    assert {row["task"] for row in read("train")[: 20 * len(LANGUAGES)]} == set(TASKS)


def test_an_unknown_split_is_refused_at_once_with_the_known_ones():
    with pytest.raises(ValueError, match="'validation'; choose one of train, dev, test"):
        rows("validation")
