"""Label words: the tables that ship, what can be wrong in one's own, and which pieces move."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dudi_kit.data.builtin import LANGUAGES as BUILTIN_LANGUAGES
from dudi_kit.data.builtin import corpus
from dudi_kit.data.chat import resolve_template
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example, Origin, Turn
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import train_tokenizer
from dudi_kit.errors import ModelError, RecipeError
from dudi_kit.recipe.diagnostics import InvalidRecipeError
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.verbalizer.label_words.files import LabelSet, label_sets, read_label_words
from dudi_kit.verbalizer.label_words.words import LabelWords, Moves, check_declared

# The tables that ship


def test_the_sets_that_ship_speak_every_language_that_recipes_know() -> None:
    sets = label_sets(None)
    assert set(sets) == {"sentiment", "topic", "nli", "yes_no", "choices"}
    assert all(words.languages == set(LANGUAGES) for words in sets.values())


def test_the_topics_are_those_of_sib200_and_of_the_builtin_corpus() -> None:
    sib200 = {"science_technology", "travel", "politics", "sports", "health", "entertainment", "geography"}
    assert set(label_sets(None)["topic"].labels) == sib200 | {"food", "education", "nature"}


@pytest.mark.parametrize("language", BUILTIN_LANGUAGES)
def test_the_words_of_the_builtin_corpus_are_label_words(language: str) -> None:
    sets, said = label_sets(None), corpus(language)
    for label, word in said["labels"].items():
        assert sets["sentiment"].label_of(word, language) == label
    for topic, word in said["topics"].items():
        assert sets["topic"].label_of(word, language) == {"sport": "sports"}.get(topic, topic)


def test_shipped_words_are_nfc_and_in_their_own_script() -> None:
    for words in label_sets(None).values():
        for spoken in words.labels.values():
            for language, known in spoken.items():
                for word in known:
                    assert unicodedata.is_normalized("NFC", word.text)
                    assert len(word.text) == 1 or _is_in_script(word.text, language), word


def _is_in_script(text: str, language: str) -> bool:
    script = {"Han": "CJK", "Myanmar": "MYANMAR"}.get(LANGUAGES[language].script, LANGUAGES[language].script.upper())
    return all(unicodedata.name(letter).startswith(script) for letter in text if letter.isalpha())


# Files of one's own


def own(folder: Path, text: str) -> Path:
    path = folder / "words.yaml"
    path.write_text(text, encoding="utf-8")
    return path


GOOD = "mood:\n  up: {id: [senang, gembira], th: [สุข]}\n  down: {id: [sedih], th: [เศร้า]}\n"


def test_a_file_of_ones_own_adds_sets_and_replaces_shipped_ones(tmp_path: Path) -> None:
    sets = label_sets(str(own(tmp_path, GOOD + "sentiment:\n  good: {id: [bagus]}\n  bad: {id: [jelek]}\n")))
    assert {"mood", "topic", "sentiment"} <= set(sets)
    assert set(sets["sentiment"].labels) == {"good", "bad"}
    assert [word.text for word in sets["mood"].labels["up"]["id"]] == ["senang", "gembira"]


def test_words_are_compared_as_nfc_and_without_capitals() -> None:
    words = label_sets(None)["sentiment"]
    assert words.label_of(unicodedata.normalize("NFD", " Tích cực\n"), "vi") == "positive"
    assert words.label_of("tích", "vi") is None
    assert words.label_of("positif", "vi") is None


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("mood:\n  up: {ind: [a]}\n", 2, "unknown language code"),
        ("mood:\n  up: {id: [a, '']}\n", 2, "a word is empty, or has spaces around it"),
        ("mood:\n  up: {id: [' a']}\n", 2, "a word is empty, or has spaces around it"),
        ("mood:\n  up: {id: [1]}\n", 2, "expected a word, found number 1"),
        ("mood:\n  up: {id: []}\n", 2, "expected a list of words"),
        ("mood:\n  up: {id: senang}\n", 2, "expected a list of words"),
        ("mood:\n  up: [senang]\n", 2, "expected a mapping, language → words; found a list"),
        ("mood: {}\n", 1, "expected a mapping, label → language → words; found an empty mapping"),
        ("- mood\n", 1, "expected a mapping, set → label → language → words; found a list"),
        ("mood:\n  up: {id: [ya]}\n  down:\n    id: [Ya]\n", 4, "the word 'Ya' stands for 'up' too (line 2)"),
        ("mood:\n  up: {vi: [ti\u0301ch]}\n  down: {vi: [tích]}\n", 3, "stands for 'up' too (line 2)"),
        ("mood:\n  up:\n    id:\n      - ya\n      - ya\n", 5, "the word 'ya' is here twice (line 4)"),
        ("mood:\n  up: {id: [a], th: [ข]}\n  down: {id: [b]}\n", 3, "no word in th, which other labels of mood have"),
        ("mood:\n  up: {id: [a]}\n  up: {id: [b]}\n", 3, "the key 'up' is here twice"),
        ("mood: [\n", 2, "a value is missing here"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = own(tmp_path, text)
    with pytest.raises(InvalidRecipeError) as caught:
        read_label_words(path)
    assert any(f.line == line and said in f.message for f in caught.value.findings), caught.value
    assert str(path) in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipeError) as caught:
        read_label_words(own(tmp_path, "mood:\n  up: {xx: [a], id: ['']}\n  down: {id: 3}\n"))
    assert {finding.code for finding in caught.value.findings} == {"language", "word", "type", "missing-language"}


def test_a_set_that_does_not_exist_is_named_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"data\.train\.a\.labels: .*'sentimant'; did you mean 'sentiment'\?"):
        check_declared([("a", "sentimant")], label_sets(None))


# Which pieces move


def encoder(*texts: str, who: str = "teacher") -> Encoder:
    """A tokenizer that has these texts as one piece each, and bytes for all others."""
    tokenizer = train_tokenizer([text for text in texts for _ in range(3)], 2000)
    resolve_template(tokenizer, "chatml", who=who)
    return Encoder(tokenizer, who=who)


def row(language: str, response: str, labels: str | None = "mood", dataset: str = "rows") -> Example:
    return Example((Turn("user", "?"),), response, language, None, Origin(dataset, "/rows.jsonl", 1), labels=labels)


def prepared(words: LabelSet, side: Encoder, *rows: Example, student: Encoder | None = None) -> LabelWords:
    return LabelWords({words.name: words}, side, student or side, rows, Ledger())


def said(side: Encoder, pieces: Sequence[int]) -> list[str]:
    return sorted(side.tokenizer.decode([piece]) for piece in pieces)


def mood(folder: Path, text: str = GOOD) -> LabelSet:
    return read_label_words(own(folder, text))["mood"]


def test_words_of_all_other_languages_move_to_the_row_s_own(tmp_path: Path) -> None:
    words = mood(
        tmp_path, "mood:\n  up: {en: [up], id: [naik], vi: [len]}\n  down: {en: [low], id: [turun], vi: [bot]}\n"
    )
    side = encoder("up", "Up", " up", "low", "naik", "turun", "len", "bot")
    moves = prepared(words, side, row("id", "naik")).moves(row("id", "naik"))
    assert moves is not None
    up, down = moves.sources
    assert {"up", "Up", " up", "len"} <= set(said(side, up))
    assert {"low", "bot"} <= set(said(side, down))
    assert [said(side, target) for target in moves.targets] == [["naik"], ["turun"]]
    assert {"naik", "turun"} <= set(said(side, moves.own))
    assert not set(moves.own) & {piece for sources in moves.sources for piece in sources}


def test_a_row_that_declares_nothing_has_no_moves(tmp_path: Path) -> None:
    side = encoder("senang")
    assert prepared(mood(tmp_path), side, row("id", "senang")).moves(row("id", "senang", None)) is None


def test_a_first_piece_of_two_labels_stays_and_is_named(tmp_path: Path) -> None:
    words = mood(tmp_path, "mood:\n  up: {en: [xa], id: [naik]}\n  down: {en: [xb], id: [turun]}\n")
    side = encoder("naik", "turun")  # xa and xb begin with the byte x
    found = prepared(words, side, row("id", "naik"))
    moves = found.moves(row("id", "naik"))
    assert moves is not None
    x = side.response_ids("x")[0]
    assert all(x not in sources for sources in moves.sources)
    assert found.declared[0].ambiguous == ["en xa", "en xb"]
    assert any("2 label words of mood stay where they are" in line for line in found.lines())


def test_a_first_piece_that_says_less_than_half_of_its_word_stays(tmp_path: Path) -> None:
    words = mood(tmp_path, "mood:\n  up: {en: [xyz, xy], id: [naik]}\n  down: {en: [wvu], id: [turun]}\n")
    side = encoder("naik", "turun")  # bytes: x is half of xy, w a third of wvu
    found = prepared(words, side, row("id", "naik"))
    moves = found.moves(row("id", "naik"))
    assert moves is not None
    x, w = (side.response_ids(letter)[0] for letter in "xw")
    assert x in moves.sources[0]
    assert w not in moves.sources[1]
    assert found.declared[0].ambiguous == ["en wvu"]


def test_a_piece_that_begins_a_word_of_the_row_s_own_language_stays(tmp_path: Path) -> None:
    words = mood(tmp_path, "mood:\n  up: {en: [xa], id: [naik]}\n  down: {en: [yb], id: [turun, xxx]}\n")
    side = encoder("naik", "turun")
    found = prepared(words, side, row("id", "naik"))
    moves = found.moves(row("id", "naik"))
    assert moves is not None
    assert side.response_ids("x")[0] not in moves.sources[0]
    assert side.response_ids("y")[0] in moves.sources[1]
    assert found.declared[0].ambiguous == ["en xa"]


def test_the_target_is_what_the_responses_say_most(tmp_path: Path) -> None:
    side = encoder("senang", "gembira", "Gembira", "sedih")
    rows = [row("id", "senang"), row("id", "Gembira"), row("id", "Gembira "), row("id", "sedih", dataset="other")]
    found = prepared(mood(tmp_path), side, *rows)
    targets = {(d.dataset, d.language): d.targets for d in found.declared}
    assert targets["rows", "id"] == {"up": "Gembira", "down": "sedih"}
    assert targets["other", "id"] == {"up": "senang", "down": "sedih"}
    moves = found.moves(rows[0])
    assert moves is not None
    assert side.tokenizer.decode(moves.targets[0]) == "Gembira"


def test_responses_that_are_no_label_and_rows_of_no_set_are_counted(tmp_path: Path) -> None:
    ledger, side = Ledger(), encoder("senang")
    rows = [row("id", "senang"), row("id", "entah"), row("id", "senang", "qa")]
    LabelWords({"mood": mood(tmp_path)}, side, side, rows, ledger)
    assert ledger.as_json() == {
        "response that is no word of the set mood": {"id": 1},
        "row that names no known set of label words": {"id": 1},
    }


def test_responses_of_which_none_is_a_label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none of the 2 responses in th is a word of the set mood .* is 'happy'"):
        prepared(mood(tmp_path), encoder("a"), row("th", "happy"), row("th", "sad"), row("id", "sedih"))


def test_a_language_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"data\.train\.rows\.labels: .* is in vi, and the label words of mood are in "
    ):
        prepared(mood(tmp_path), encoder("a"), row("vi", "vui"))


# Tokenizers that lose text


def lossy(*known: str, who: str = "student", normalizer: Any = None) -> Encoder:
    """Whole words only; all others are [UNK]."""
    special = ["[UNK]", "</s>"]
    vocabulary = {word: i for i, word in enumerate([*special, *known, "user", "assistant", "question", "answer"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if normalizer:
        tokenizer.normalizer = normalizer
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="</s>", name_or_path="lossy"
    )
    resolve_template(fast, "plain", who=who)
    return Encoder(fast, who=who)


def test_a_target_that_a_tokenizer_can_not_say_is_named_with_file_line_and_tokenizer(tmp_path: Path) -> None:
    words, row_id = mood(tmp_path), row("id", "senang")
    with pytest.raises(ModelError) as caught:
        prepared(words, encoder("senang", "sedih"), row_id, student=lossy("senang"))
    assert (
        f"{tmp_path / 'words.yaml'}:3: the label word 'sedih' can't be said by the student's tokenizer (lossy)"
        in str(caught.value)
    )
    assert "it writes '[UNK]'" in str(caught.value)


def test_a_tokenizer_that_strips_accents_can_not_say_a_word_with_one(tmp_path: Path) -> None:
    words = mood(tmp_path, "mood:\n  up: {vi: [vúi]}\n  down: {vi: [buon]}\n")
    plain = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    with pytest.raises(ModelError, match=r"the label word 'vúi' can't be said by .* it writes 'vui'"):
        prepared(words, lossy("vui", "buon", who="teacher", normalizer=plain), row("vi", "vúi"))


def test_words_of_other_languages_that_the_teacher_can_not_say_are_left_out_and_named(tmp_path: Path) -> None:
    side = lossy("senang", "sedih", who="teacher")
    found = prepared(mood(tmp_path), side, row("id", "senang"))
    moves = found.moves(row("id", "senang"))
    assert moves is not None
    assert moves.sources == ((), ())
    assert found.declared[0].unsayable == ["th สุข", "th เศร้า"]


def test_moves_are_plain_numbers() -> None:
    found = LabelWords(label_sets(None), *[encoder("positif")] * 2, [row("id", "positif", "sentiment")], Ledger())
    moves = found.moves(row("id", "positif", "sentiment"))
    assert isinstance(moves, Moves)
    assert all(isinstance(piece, int) for part in (*moves.sources, *moves.targets, moves.own) for piece in part)
    assert len(moves.sources) == len(moves.targets) == 3
