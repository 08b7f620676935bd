import pytest

from dudi_kit.errors import DataError
from dudi_kit.evaluate.seahelm.parsing import check_labels, check_tag, label_reader, line_reader

MOODS = ["positive", "negative", "neutral"]


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("Jawaban: positive", "positive"),
        ("jawaban:POSITIVE!", "positive"),
        ("**Jawaban:** negative", "negative"),
        ("Jawaban:\n\n * neutral", "neutral"),
        ("Jawaban: positivenegative", "negative"),  # the last of a run
        ("Jawaban: positive negative", "positive"),  # no run: a blank is between them
        ("Jawaban: positively", "positive"),  # nothing need end a label
        ("Jawaban: mixed. Jawaban: neutral", "neutral"),  # the first tag with a label
        ("Jawaban: positive\nJawaban: negative", "positive"),
        ('"Positive".', "positive"),  # no tag: the whole response
        ("It is positive", None),
        ("Jawaban: «positive»", None),
        ("Jawaban: `positive`", None),  # backticks are skipped in lines only
        ("\tpositive", "positive"),
        ("", None),
        (None, None),
    ],
)
def test_labels_by_hand(response, label):
    assert label_reader("Jawaban:", MOODS)(response) == label


def test_letters_are_read_from_the_beginning_of_a_word():
    assert label_reader("Jawaban:", ["B", "C"])("Jawaban: Bandung") == "B"
    assert label_reader("Jawaban:", list("ABCD"))("Jawaban: Bandung") == "A"  # B, then a: the last of a run


def test_the_longest_label_is_read_whatever_the_order_of_the_labels():
    for labels in (["not", "not sure", "sure"], ["sure", "not sure", "not"]):
        assert label_reader("A:", labels)("A: not sure") == "not sure"


def test_a_label_is_given_back_as_it_is_written_and_means_itself():
    assert label_reader("A:", ["Thù ghét", "C.D"])("A: THÙ GHÉT") == "Thù ghét"
    assert label_reader("A:", ["Thù ghét", "C.D"])("A: cxd") is None


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Jawaban: di pasar lama \nkarena", "di pasar lama"),
        ("Jawaban:\n\n`**di pasar**`", "di pasar**`"),
        ("jawaban: di pasar", "jawaban: di pasar"),  # case counts
        (" di pasar\nlama ", "di pasar\nlama"),
        ("Jawaban:", ""),
        ("x Jawaban: a\rb", "a\rb"),  # only a newline ends a line
        (None, ""),
    ],
)
def test_lines_by_hand(response, answer):
    assert line_reader("Jawaban:")(response) == answer


def test_without_a_tag_the_whole_response_is_the_answer():
    assert label_reader("", ["A", "B"])(" a.") == "A"
    assert label_reader("", ["A", "B"])("Saya pilih B") is None
    assert line_reader("")(" di pasar\nlama ") == "di pasar\nlama"


def test_a_tag_is_a_regular_expression():
    assert line_reader(r"[:：]")("x： ya") == "ya"
    assert label_reader("Answer.", MOODS)("Answer- neutral") == "neutral"


@pytest.mark.parametrize(
    ("tag", "message"), [("(a+)+$", "without repetitions"), ("Jawab(an)?:", "groups"), ("[a", "no regular expression")]
)
def test_tags_that_could_take_for_ever_or_mean_nothing_are_refused(tag, message):
    with pytest.raises(DataError, match=message):
        check_tag(tag)
    check_tag(r"Jawaban \(A\+B\):")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["Ya", "tidak", "YA"], r"'Ya' and 'YA' are the same in lower case"),
        (["ya", "ya"], "the same in lower case"),
        (["ya", "Null"], "null is SEA-HELM's word"),
        (["A.", "B"], r"'A\.' can never be answered.*Write 'a'"),
        (["so  so", "B"], "can never be answered"),
        (["", "B"], "can never be answered"),
        (["A"], "two labels or more"),
    ],
)
def test_labels_that_no_answer_can_give_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        check_labels(labels)
