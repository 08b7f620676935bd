"""The parser against a second, slow reading of SEA-HELM's rules, written by hand without regular expressions."""

import random
import string

from dudi_kit.evaluate.seahelm.parsing import label_reader, line_reader

ANSWERS = 5000
TASKS = [
    ("Jawaban:", ["positive", "negative", "neutral"]),
    ("Câu trả lời:", ["Thù ghét", "Công kích", "Sạch"]),
    ("คำตอบ:", ["Y", "N"]),
    ("பதில்:", list("ABCD")),
    ("အဖြေ-", list("ABCD")),
    ("ចម្លើយ៖", ["A", "AB", "ABA", "not A"]),  # the beginnings of one another
]
BETWEEN = [
    "",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "*",
    "**",
    " * ",
    "`",
    "\xa0",
    "\u2028",
    "\x0b",
    "«",
    "(",
    ":",
    "\u200b",
    "។",
]
BESIDE = [*BETWEEN, "!", ".", "?!", '"', "_", "karena", " 12", "A", "b", "N", "jawaban", "null", "\n\n", "```\n", ")"]


def test_labels_agree_on_5_000_answers():
    rng = random.Random(7)
    nulls = 0
    for _ in range(ANSWERS):
        tag, labels = rng.choice(TASKS)
        answer = _answer(rng, tag, labels)
        expected = slow_label(tag, labels, answer)
        assert label_reader(tag, labels)(answer) == expected, (tag, labels, answer)
        nulls += expected is None
    assert 0.2 * ANSWERS < nulls < 0.8 * ANSWERS


def test_lines_agree_on_5_000_answers():
    rng = random.Random(8)
    whole = 0
    for _ in range(ANSWERS):
        tag, labels = rng.choice(TASKS)
        answer = _answer(rng, tag, [*labels, "di pasar lama"])
        expected = slow_line(tag, answer)
        assert line_reader(tag)(answer) == expected, (tag, answer)
        whole += expected == answer.strip()
    assert 0.05 * ANSWERS < whole < 0.8 * ANSWERS


def _answer(rng, tag, labels):
    def cased(text):
        return rng.choice([text, text, text.upper(), text.title(), text.lower()])

    def label():
        return "".join(cased(rng.choice(labels)) for _ in range(rng.choice([1, 1, 1, 2, 3])))

    pieces = []
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        announced = cased(tag) if rng.random() < 0.8 else tag[:-1]
        pieces += [rng.choice(BESIDE), announced, rng.choice(BETWEEN), rng.choice(BETWEEN)]
        pieces += [label() if rng.random() < 0.8 else rng.choice(BESIDE)]
    if not pieces or rng.random() < 0.3:
        pieces += [rng.choice(BETWEEN), label() if rng.random() < 0.7 else ""]
    return "".join([*pieces, rng.choice(BESIDE), rng.choice(BESIDE)])


def slow_label(tag, labels, answer):
    for start in range(len(answer)):
        if not same(answer[start : start + len(tag)], tag):
            continue
        here = start + len(tag)
        while here < len(answer) and (answer[here].isspace() or answer[here] == "*"):
            here += 1
        last = None
        while fitting := [label for label in labels if same(answer[here : here + len(label)], label)]:
            last = max(fitting, key=len)
            here += len(last)
        if last is not None:
            return last
    return looked_up(answer, labels)


def looked_up(answer, labels):
    text = list(trimmed(answer).lower())
    while text and text[0] in string.punctuation + " \n":
        text.pop(0)
    while text and text[-1] in string.punctuation + " \n":
        text.pop()
    said = " ".join("".join(text).split())
    for label in labels:
        if label.lower() == said:
            return label
    return None


def slow_line(tag, answer):
    for start in range(len(answer)):
        if answer[start : start + len(tag)] == tag:
            here = start + len(tag)
            while here < len(answer) and (answer[here].isspace() or answer[here] in "`*"):
                here += 1
            line = ""
            while here < len(answer) and answer[here] != "\n":
                line += answer[here]
                here += 1
            return trimmed(line)
    return trimmed(answer)


def trimmed(text):
    while text and text[0].isspace():
        text = text[1:]
    while text and text[-1].isspace():
        text = text[:-1]
    return text


def same(first, second):
    return first.lower() == second.lower()
