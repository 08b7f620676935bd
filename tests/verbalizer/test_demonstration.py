"""What the teacher reads before a prompt, and what it must never read."""

import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dudi_kit.data.chat import resolve_template
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example, Exchange, Origin, Turn
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.script import is_mostly_in
from dudi_kit.errors import RecipeError
from dudi_kit.plan.rows import RowMaker, TeacherSide
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.schema.data import Data
from dudi_kit.recipe.schema.verbalizer import Demonstration
from dudi_kit.verbalizer.demonstration import Demonstrator
from dudi_kit.verbalizer.vocabulary.mapping import SharedVocabulary
from tests.data.tiny import chatml_tokenizer


def row(number: int, language: str, prompt: str, response: str = "ya", english: str | None = None) -> Example:
    shown = Exchange("en", english, "yes") if english else None
    return Example((Turn("user", prompt),), response, language, shown, Origin("rows", "/rows.jsonl", number))


INDONESIAN = row(1, "id", "Apakah kucing itu tidur?", english="Does the cat sleep?")
ENGLISH = row(2, "en", "Does the dog run?", "yes")
THAI_ALONE = row(3, "th", "แมวนอนไหม", "ใช่")


def demonstrator(pool: tuple[Example, ...] = (), **settings: Any) -> Demonstrator:
    return Demonstrator(Demonstration(**settings), pool, Ledger())


def last_turn(example: Example, pool: tuple[Example, ...] = (), **settings: Any) -> str:
    return demonstrator(pool, **settings).turns(example)[-1].content


# Which exchanges


@pytest.mark.parametrize(
    ("languages", "expected"),
    [(["same", "en"], ["id", "en"]), (["en", "same"], ["en", "id"]), (["en"], ["en"]), (["same", "id"], ["id"])],
)
def test_parallel_shows_the_row_and_its_english_version_in_the_order_asked(
    languages: list[str], expected: list[str]
) -> None:
    shown = demonstrator(languages=languages).exchanges(INDONESIAN)
    assert [exchange.language for exchange in shown] == expected
    texts = {"id": ("Apakah kucing itu tidur?", "ya"), "en": ("Does the cat sleep?", "yes")}
    assert [(e.prompt, e.response) for e in shown] == [texts[code] for code in expected]


def test_an_english_row_is_shown_once() -> None:
    assert demonstrator().exchanges(ENGLISH) == [Exchange("en", "Does the dog run?", "yes")]
    itself_as_english = replace(ENGLISH, english=Exchange("en", "other", "no"))
    assert demonstrator().exchanges(itself_as_english) == [Exchange("en", "Does the dog run?", "yes")]


def test_a_row_without_english_is_shown_in_its_own_language_alone_and_counted() -> None:
    side = demonstrator()
    assert side.exchanges(THAI_ALONE) == [Exchange("th", "แมวนอนไหม", "ใช่")]
    assert side.ledger.as_json() == {"demonstration without its en part: none for this row": {"th": 1}}


def test_a_row_with_nothing_to_show_keeps_its_prompt_and_is_counted() -> None:
    side = demonstrator(languages=["en"])
    assert side.turns(THAI_ALONE) == THAI_ALONE.prompt
    assert side.ledger.as_json() == {"taught without a demonstration: none for this row": {"th": 1}}
    assert "/rows.jsonl:3 (rows)" in side.ledger.lines()[0]


def test_none_shows_nothing_and_counts_nothing() -> None:
    side = demonstrator(source="none")
    assert side.turns(INDONESIAN) == INDONESIAN.prompt
    assert not side.ledger.counts


# Other languages, found by what the rows of an item share


def versions(dataset: str = "rows") -> list[Example]:
    """Two items in three languages each; English among them as a row, not as a column."""
    made = [
        row(2 * i + n, language, f"{language} {item}", f"{item} {language}")
        for n, item in enumerate(("a", "b"))
        for i, language in enumerate(("th", "ms", "en"))
    ]
    return [replace(e, item=e.prompt[-1].content[-1], origin=e.origin._replace(dataset=dataset)) for e in made]


def test_parallel_finds_the_versions_of_a_row_by_what_they_share() -> None:
    rows = versions()
    side = demonstrator(tuple(rows), languages=["same", "ms", "en"])
    thai = next(e for e in rows if e.language == "th" and e.item == "b")
    assert side.exchanges(thai) == [
        Exchange("th", "th b", "b th"),
        Exchange("ms", "ms b", "b ms"),
        Exchange("en", "en b", "b en"),
    ]
    assert not side.ledger.counts


def test_versions_are_looked_for_in_the_rows_own_dataset_and_their_lack_is_counted() -> None:
    side = demonstrator(tuple(versions("other")), languages=["same", "ms", "lo"])
    mine = replace(THAI_ALONE, item="a")
    assert [part.language for part in side.exchanges(mine)] == ["th"]
    events = {f"demonstration without its {code} part: none for this row" for code in ("ms", "lo")}
    assert set(side.ledger.as_json()) == events


def test_pool_never_shows_the_item_itself_whatever_the_seed_languages_and_datasets() -> None:
    """Items of 1 to 4 versions in two datasets that read the same file; every answer tells its item."""
    random = np.random.default_rng(0)
    for trial in range(40):
        codes = random.permutation(["id", "th", "ms", "en"])[: random.integers(1, 5)].tolist()
        pool = []
        for name in ("one", "two"):
            said = [(str(item), code) for item in range(random.integers(1, 6)) for code in codes]
            for number, (item, code) in enumerate(said):
                example = row(number, code, f"{code} {item}", f"answer {item}")
                pool.append(replace(example, item=item, origin=example.origin._replace(dataset=name)))
        wanted = ["same", *random.permutation(["en", "ms", "vi"])[:2].tolist()]
        side = demonstrator(tuple(pool), source="pool", languages=wanted, seed=trial)
        for example in pool:
            answers = {part.response for part in side.exchanges(example)}
            assert example.response not in answers


# Pool

POOL = tuple(
    row(10 + i, language, f"{language} tanya {i}", f"jawab {i}", f"question {language} {i}")
    for i in range(20)
    for language in ("id", "th")
)


def test_pool_draws_a_row_of_the_same_language_with_its_english_version() -> None:
    own, english = demonstrator(POOL, source="pool").exchanges(POOL[0])
    assert (own.language, english.language) == ("id", "en")
    number = own.prompt.removeprefix("id tanya ")
    assert (own.response, english.prompt) == (f"jawab {number}", f"question id {number}")
    assert number != "0"


def test_pool_shows_rows_of_the_language_asked_where_the_exemplar_has_no_such_version() -> None:
    english_rows = (row(90, "en", "What is it?", "a cat"), row(91, "en", "What was it?", "a dog"))
    pool = (row(1, "th", "นี่คืออะไร"), row(2, "th", "นั่นคืออะไร"), *english_rows)
    own, english = demonstrator(pool, source="pool").exchanges(pool[0])
    assert own.prompt == "นั่นคืออะไร"
    assert english.prompt in {"What is it?", "What was it?"}


def test_pool_never_shows_the_row_itself_its_translation_or_the_same_prompt() -> None:
    asked = row(1, "id", "Apakah ini?", english="Is this it?")
    same_prompt = row(2, "id", "Apakah ini?", "tidak")
    same_english = row(3, "id", "Apakah ini dia?", english="Is this it?")
    translation = row(4, "en", "Is this it?", "yes")
    pool = (asked, same_prompt, same_english, translation)
    for seed in range(20):
        side = demonstrator(pool, source="pool", seed=seed)
        assert side.exchanges(asked) == []
        assert all(shown.language == "id" for shown in side.exchanges(translation))
        backwards = demonstrator(pool, source="pool", languages=["id"], seed=seed)
        assert [e.prompt for e in backwards.exchanges(translation)] == ["Apakah ini?"]  # only 2 is no translation of it


def test_pool_never_shows_the_same_line_of_a_file_that_two_datasets_read() -> None:
    other = INDONESIAN.origin._replace(dataset="other")
    shown_already = replace(INDONESIAN, prompt=(Turn("user", "[shown] x"),), english=None, origin=other)
    assert demonstrator((INDONESIAN, shown_already), source="pool").exchanges(INDONESIAN) == []


def test_pool_is_the_same_in_every_run_and_changes_with_the_seed() -> None:
    def drawn(seed: int) -> list[list[Exchange]]:
        side = demonstrator(POOL, source="pool", seed=seed)
        return [side.exchanges(example) for example in POOL]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_pool_draws_the_same_rows_when_the_folder_is_moved() -> None:
    def draw(folder: str) -> list[list[Exchange]]:
        moved = tuple(replace(e, origin=e.origin._replace(file=f"{folder}/rows.jsonl")) for e in POOL)
        return [demonstrator(moved, source="pool").exchanges(example) for example in moved]

    assert draw("/home/a") == draw("/mnt/b")


def test_pool_counts_a_row_whose_language_has_no_other_row() -> None:
    side = demonstrator((THAI_ALONE, INDONESIAN), source="pool", languages=["same"])
    assert side.turns(THAI_ALONE) == THAI_ALONE.prompt
    assert side.ledger.counts["taught without a demonstration: none for this row", "th"] == 1


# The text


def test_the_default_template_to_the_letter() -> None:
    assert last_turn(INDONESIAN) == (
        "Contoh:\n\nApakah kucing itu tidur?\nJawaban: ya\n\n"
        "Does the cat sleep?\nJawaban: yes\n\n"
        "Sekarang jawablah ini:\nApakah kucing itu tidur?"
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_a_template_in_its_own_words_that_ends_with_the_prompt(language: str) -> None:
    text = last_turn(row(1, language, "⟦1⟧", "⟦2⟧", english="⟦3⟧"))
    assert text.endswith("\n⟦1⟧")
    frame = re.sub("⟦.⟧|yes", "", text)
    assert frame == unicodedata.normalize("NFC", frame)
    assert is_mostly_in(frame, language)
    assert len(frame.split("\n")) == len(last_turn(ENGLISH).split("\n")) + 3 * (language != "en")
    words = {code: last_turn(row(1, code, "⟦1⟧", "⟦2⟧")) for code in LANGUAGES}
    assert sum(other == words[language] for other in words.values()) == 1, "no language speaks another's words"


def test_earlier_turns_are_kept_as_they_are() -> None:
    earlier = (Turn("system", "Be brief."), Turn("user", "Hai"), Turn("assistant", "Halo"))
    example = replace(INDONESIAN, prompt=(*earlier, *INDONESIAN.prompt))
    turns = demonstrator().turns(example)
    assert turns[:3] == earlier
    assert len(turns) == 4
    assert turns[3].role == "user"
    assert turns[3].content.startswith("Contoh:\n\nApakah kucing")


def template(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_each_language_has_its_own_template_and_the_rest_the_default(tmp_path: Path) -> None:
    text = (
        "{% for d in demonstrations %}{{ d.language }}={{ d.response }};{% endfor %}{{ prompt }} ({{ language_name }})"
    )
    mine = {"th": template(tmp_path, "thai.jinja", text)}
    assert last_turn(THAI_ALONE, template=mine) == "th=ใช่;แมวนอนไหม (Thai)"
    assert last_turn(ENGLISH, template=mine).startswith("Example:\n")
    for_all = mine["th"]
    assert last_turn(ENGLISH, template=for_all) == "en=yes;Does the dog run? (English)"


def test_text_of_a_row_is_never_read_as_a_template() -> None:
    assert last_turn(row(1, "id", "{{ prompt }} {% if %}")).endswith("\n{{ prompt }} {% if %}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ prompt }} {{ answer }}", "'answer' is undefined"),
        ("{{ prompt ", "line 1: unexpected end of template"),
        ("{% for x in %}", "line 1: "),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ range(10) }}", "'call' is not allowed"),
        ("{% include '/etc/passwd' %}", "'include' is not allowed"),
        ("{{ demonstrations }}", "shows texts and numbers, found a list of 1"),
        ("{% if language == 'my' %}{{ prompt }} {{ anwser }}{% endif %}{{ prompt }}", "'anwser' is undefined"),
        ("{% for d in demonstrations %}{{ d.answer }}{% endfor %}{{ prompt }}", "no attribute 'answer'"),
        ("{% for d in demonstrations %}{{ d.prompt }}{% endfor %}", "it does not show {{ prompt }}"),
        ("{{ prompt if language != 'lo' else '' }}", "it does not show {{ prompt }}"),
    ],
    ids=[
        *("undefined", "unfinished", "syntax", "internals", "call", "include", "list"),
        *("undefined in a branch", "undefined part", "no prompt", "no prompt for a language"),
    ],
)
def test_a_faulty_template_is_named_with_what_it_may_use(tmp_path: Path, text: str, reason: str) -> None:
    path = template(tmp_path, "mine.jinja", text)
    with pytest.raises(RecipeError) as caught:
        demonstrator(template=path)  # before any row is read
    said = str(caught.value)
    assert said.startswith(f"verbalizer.demonstration.template: {path}: ")
    assert reason in said
    assert "A template may use demonstrations (language, language_name, prompt and response of each)" in said


def test_an_unreadable_template_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.jinja"
    binary.write_bytes(b"\xff\xfe{{ prompt }}")
    for path, reason in ((str(tmp_path / "no.jinja"), "No such file"), (str(binary), "not UTF-8"), (str(tmp_path), "")):
        with pytest.raises(RecipeError, match=r"verbalizer\.demonstration\.template: can't read ") as caught:
            demonstrator(template=path)
        assert path in str(caught.value)
        assert reason in str(caught.value)


# In the rows of training


def encoder(who: str, template: str = "chatml") -> Encoder:
    tokenizer = chatml_tokenizer()
    resolve_template(tokenizer, template, who=who)
    return Encoder(tokenizer, who=who)


def made(
    settings: Demonstration | None, *, room: int = 10_000, context: int = 10_000, teacher_template: str = "chatml"
) -> tuple[Any, Ledger]:
    """The row that INDONESIAN becomes; settings None: there is no teacher."""
    ledger, student = Ledger(), encoder("student")
    side = None
    if settings is not None:
        terms = settings.terms if settings.source != "none" else []
        teacher = encoder("teacher", teacher_template)
        side = TeacherSide(
            teacher,
            Demonstrator(settings, [INDONESIAN, *POOL], ledger),
            terms,
            room=room,
            context=context,
            vocabulary=SharedVocabulary(10_000, ""),
            ledger=ledger,
        )
    data = Data(train={"a": {"builtin": "train"}}, max_length=2_000)  # type: ignore[dict-item]
    (only,) = RowMaker(data, student, ledger, side).rows([INDONESIAN])
    return only, ledger


def test_the_students_prompt_does_not_depend_on_the_demonstration() -> None:
    alone, _ = made(None)
    for settings in (
        Demonstration(),
        Demonstration(source="pool"),
        Demonstration(source="none"),
        Demonstration(terms=["on_policy", "off_policy"], languages=["en"]),
    ):
        with_teacher, _ = made(settings)
        assert (with_teacher.prompt, with_teacher.response) == (alone.prompt, alone.response)


def test_only_the_terms_that_are_named_read_the_demonstration() -> None:
    def reads(terms: list[str]) -> dict[str, bool]:
        settings = Demonstration(terms=terms)  # type: ignore[arg-type]
        prompts, student = made(settings)[0].teacher_prompts, made(None)[0].prompt
        return {term: prompts[term] != student for term in ("off_policy", "on_policy")}

    assert reads(["on_policy"]) == {"off_policy": False, "on_policy": True}
    assert reads(["off_policy"]) == {"off_policy": True, "on_policy": False}
    assert reads(["off_policy", "on_policy"]) == {"off_policy": True, "on_policy": True}
    assert reads([]) == {"off_policy": False, "on_policy": False}


def test_a_row_knows_what_its_teacher_was_really_shown() -> None:
    assert made(Demonstration())[0].shown == {"off_policy": "none", "on_policy": "parallel"}
    pool = Demonstration(source="pool", terms=["off_policy", "on_policy"])
    assert made(pool)[0].shown == {"off_policy": "pool", "on_policy": "pool"}
    nothing = {"off_policy": "none", "on_policy": "none"}
    assert made(Demonstration(source="none"))[0].shown == nothing
    assert made(Demonstration(), room=5)[0].shown == nothing  # it did not fit
    assert made(None)[0].shown == {}


def test_the_teacher_keeps_its_own_chat_template() -> None:
    teacher = made(Demonstration(), teacher_template="plain")[0].teacher_prompts
    text = encoder("teacher").tokenizer.decode(teacher["on_policy"])
    assert text == last_turn(INDONESIAN) + "\n"
    assert encoder("teacher").tokenizer.decode(teacher["off_policy"]) == "Apakah kucing itu tidur?\n"


def decoded(ids: list[int]) -> str:
    return str(encoder("teacher").tokenizer.decode(ids))


def test_of_a_demonstration_that_does_not_fit_the_last_part_is_left_out_first_then_all_and_each_is_counted() -> None:
    def prompt(room: int, languages: list[str] | None = None) -> tuple[Any, Ledger]:
        settings = Demonstration(languages=languages or ["same", "en"])
        only, ledger = made(settings, room=room)
        return only, ledger

    whole, ledger = prompt(10_000)
    needed = len(whole.teacher_prompts["on_policy"])
    assert not ledger.counts
    assert prompt(needed)[0].teacher_prompts == whole.teacher_prompts, "it fits to the token"
    own, ledger = prompt(needed - 1)
    alone = made(Demonstration(languages=["same"]))[0]
    assert own.teacher_prompts == alone.teacher_prompts
    assert ledger.as_json() == {"demonstration cut to 1 of 2 parts: longer than the teacher's room": {"id": 1}}
    english, _ = prompt(needed - 1, ["en", "same"])
    assert "Does the cat sleep?" in decoded(english.teacher_prompts["on_policy"])
    assert decoded(english.teacher_prompts["on_policy"]).count("Apakah kucing") == 1
    bare, ledger = prompt(len(alone.teacher_prompts["on_policy"]) - 1)
    assert bare.teacher_prompts["on_policy"] == bare.teacher_prompts["off_policy"]
    assert ledger.as_json() == {"taught without a demonstration: longer than the teacher's room": {"id": 1}}
    for cut in (own, bare, prompt(1)[0]):
        assert (cut.prompt, cut.response) == (whole.prompt, whole.response), "never prompt nor response"
        assert cut.teacher_prompts["off_policy"] == whole.teacher_prompts["off_policy"]


def test_off_policy_the_rows_own_response_has_to_fit_behind_the_demonstration() -> None:
    settings = Demonstration(terms=["off_policy"])
    shown, _ = made(settings)
    needed = len(shown.teacher_prompts["off_policy"]) + len(shown.response)
    assert not made(settings, context=needed)[1].counts
    less, ledger = made(settings, context=needed - 1)
    assert len(less.teacher_prompts["off_policy"]) + len(less.response) < needed
    assert less.response == shown.response
    assert ledger.as_json() == {"demonstration cut to 1 of 2 parts: longer than the teacher's room": {"id": 1}}
    assert not made(Demonstration(terms=["on_policy"]), context=needed - 1)[1].counts
