"""What the training text gives away of the evaluation, by hand."""

import pytest

from dudi_kit.data.words import words
from dudi_kit.evaluate.contamination import Detector, Item

TH = "แมวนอนหลับอยู่ใต้โต๊ะในบ้านหลังใหญ่ของคุณยายเมื่อเช้าวันนี้"
MY = "မြန်မာနိုင်ငံသည် အရှေ့တောင်အာရှတွင် တည်ရှိပြီး လူဦးရေ သန်းငါးဆယ်ကျော် ရှိသည်"
KM = "ខ្ញុំស្រឡាញ់ប្រទេសកម្ពុជាព្រោះវាជាប្រទេសដែលមានវប្បធម៌ដ៏សម្បូរបែប"
LO = "ຂ້ອຍຮັກປະເທດລາວເພາະວ່າເປັນປະເທດທີ່ມີວັດທະນະທຳທີ່ອຸດົມສົມບູນ"
ID = "Ibu kota negara itu dipindahkan ke pulau lain pada tahun dua ribu dua puluh empat"


@pytest.mark.parametrize(
    ("language", "text", "some"),
    [
        ("th", TH, ["แมว", "นอน", "หลับ"]),
        ("my", MY, ["မြန်မာနိုင်ငံ"]),
        ("km", KM, ["ប្រទេស", "កម្ពុជា"]),
        ("lo", LO, ["ປະເທດ", "ລາວ"]),
        ("vi", "Con MÈO đang ngủ, mẹ đi chợ.", ["con", "mèo", "đang", "ngủ", "mẹ", "đi", "chợ"]),
        ("ta", "பூனை மேசையின் கீழ் தூங்குகிறது!", ["பூனை", "மேசையின்", "கீழ்", "தூங்குகிறது"]),
    ],
)
def test_words_of_scripts_with_and_without_spaces(language: str, text: str, some: list[str]) -> None:
    found = words(text, language)
    assert set(some) <= set(found)
    assert all(word.strip() == word and word not in ".,!" for word in found)


@pytest.mark.parametrize(("language", "text"), [("th", TH), ("my", MY), ("km", KM), ("lo", LO), ("id", ID)])
def test_a_copied_item_is_found_with_its_place(language: str, text: str) -> None:
    detector = Detector([Item("qa", language, "1", (text,)), Item("qa", language, "2", (text[::-1],))])
    detector.see(f"« {text} … »", language, "training", "rows.jsonl:7")
    found = detector.found()
    assert [(f.id, f.share, f.sources) for f in found.findings] == [("1", 1.0, {"training": "rows.jsonl:7"})]
    overlap = found.overlaps["qa"][language]
    assert (overlap.items, overlap.contaminated, overlap.by_source) == (2, 1, {"training": 1})


def test_the_share_by_hand() -> None:
    """15 words; the training text has the first 10, that is three 8-grams, which cover 10 of 15 words: below 70 %."""
    item = Item("qa", "id", "1", (ID,))
    first_ten, first_eleven = (" ".join(ID.split()[:n]) for n in (10, 11))
    below, above = Detector([item]), Detector([item])
    below.see(first_ten, "id", "training", "a")
    above.see(first_eleven, "id", "training", "a")
    assert below.found().contaminated == 0
    assert above.found().findings[0].share == pytest.approx(11 / 15)


def test_seven_words_in_a_row_are_no_evidence() -> None:
    detector = Detector([Item("qa", "id", "1", (ID,))])
    tokens = ID.split()
    for start in range(0, len(tokens), 7):
        detector.see(" ".join(tokens[start : start + 7]), "id", "training", "a")
    assert detector.found().contaminated == 0


def test_spelling_case_and_punctuation_do_not_hide_a_copy() -> None:
    detector = Detector([Item("qa", "id", "1", (ID,))])
    detector.see(ID.upper().replace(" ", ", "), "id", "teacher", "asked")
    assert detector.found().findings[0].sources == {"teacher": "asked"}


def test_an_items_sources_are_told_apart() -> None:
    other = "Harga beras di pasar naik dua kali lipat sejak musim hujan tahun lalu"
    detector = Detector([Item("qa", "id", "1", (ID,)), Item("qa", "id", "2", (other,))])
    for source, text in (("training", ID), ("demonstration", ID), ("demonstration", other)):
        detector.see(text, "id", source, source)  # type: ignore[arg-type]
    assert detector.found().overlaps["qa"]["id"].by_source == {"training": 1, "demonstration": 2}


def test_the_frame_of_a_prompt_is_no_contamination() -> None:
    frame = "Jawablah pertanyaan berikut dengan satu kata saja tanpa penjelasan apa pun:"
    facts = ["gajah makan rumput", "ikan berenang di laut", "burung terbang tinggi", "kucing tidur siang", "sapi minum"]
    items = [Item("qa", "id", str(i), (f"{frame} {fact}",)) for i, fact in enumerate(facts)]
    detector = Detector(items)
    detector.see(f"{frame} apa ibu kota Prancis", "id", "training", "a")
    assert detector.found().contaminated == 0


def test_an_item_inside_a_long_frame_is_judged_by_its_own_words() -> None:
    """Ten words of its own between frames of eight: the n-grams across the borders must not water down its share."""
    before = "Jawablah pertanyaan berikut dengan satu kata saja sekarang"
    after = "Tulis jawaban dalam bentuk ini tanpa tambahan apa pun"
    own = ["satu", "dua", "tiga", "empat", "lima"]
    texts = [" ".join(f"{word}{i}" for i in range(10)) for word in own]
    detector = Detector(
        [Item("qa", "id", word, (f"{before} {text} {after}",)) for word, text in zip(own, texts, strict=True)]
    )
    detector.see(texts[2], "id", "training", "a")
    assert [(finding.id, finding.share) for finding in detector.found().findings] == [("tiga", 1.0)]


def test_an_item_with_too_few_words_beside_its_frame_says_nothing() -> None:
    frame = "Jawablah pertanyaan berikut dengan satu kata saja tanpa penjelasan apa pun:"
    detector = Detector([Item("qa", "id", str(i), (f"{frame} gajah {i} makan",)) for i in range(5)])
    assert detector.found().overlaps["qa"]["id"].too_short == 5


def test_short_items_are_compared_whole_and_the_shortest_counted() -> None:
    detector = Detector([Item("t", "id", "1", ("Kucing itu tidur nyenyak",)), Item("t", "id", "2", ("Selamat pagi",))])
    detector.see("Tadi malam kucing itu tidur nyenyak sekali", "id", "training", "a")
    detector.see("selamat pagi", "id", "training", "a")
    found = detector.found()
    assert [finding.id for finding in found.findings] == ["1"]
    assert found.overlaps["t"]["id"].too_short == 1


def test_a_one_word_answer_beside_a_passage_does_not_count() -> None:
    detector = Detector([Item("qa", "id", "1", (ID, "benar"))])
    detector.see(ID, "id", "training", "a")
    assert detector.found().findings[0].share == 1


def test_malay_training_text_may_give_away_an_indonesian_item() -> None:
    detector = Detector([Item("qa", "id", "1", (ID,))])
    detector.see(ID, "ms", "training", "a")
    assert detector.found().contaminated == 1
