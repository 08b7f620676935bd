import os
import random
import subprocess
import sys

import numpy as np
import pytest

from dudi_kit.evaluate.seahelm.rouge import Rouge, bootstrap_median, common_subsequence, mean
from dudi_kit.evaluate.seahelm.tokens import burmese_syllables, chinese_words, rouge_tokens, thai_words


def test_burmese_syllables_by_hand():
    assert burmese_syllables("ကျောင်း ဆရာ") == ["ကျောင်း", "ဆ", "ရာ"]  # the asat closes, the blank goes
    assert burmese_syllables("ဗုဒ္ဓ") == ["ဗု", "ဒ္ဓ"]  # a virama glues its neighbours
    assert burmese_syllables("12 က") == ["1", "2", "က"]
    assert burmese_syllables("က့်") == burmese_syllables("က့်")  # tone and asat in either order
    assert burmese_syllables("") == []


def test_rouge_tokens_by_hand():
    pytest.importorskip("pyonmttok", reason="the extra seahelm is not installed")
    assert rouge_tokens("Harga 12kg (Beras)\u200b naik; 50%", "id") == ["harga", "12", "kg", "beras", "naik", "50"]
    assert rouge_tokens("Tahun 2024年底", "ms") == ["tahun", "2024", "年", "底"]
    assert rouge_tokens(" \ufffd!? ", "id") == []


def test_thai_keeps_the_white_space_between_words_and_no_punctuation():
    pytest.importorskip("pythainlp", reason="the extra seahelm is not installed")
    assert rouge_tokens("ตลาดเก่า (ใหม่)", "th") == [*thai_words("ตลาดเก่า"), " ", "ใหม่"]


def test_the_longest_common_subsequence_agrees_with_the_table():
    rng = random.Random(0)
    for _ in range(300):
        first, second = (rng.choices("abcd", k=rng.randrange(90)) for _ in range(2))
        assert common_subsequence(first, second) == _by_table(first, second)


def test_the_bootstrap_median_is_reproducible_and_leaves_the_global_generator_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    scores = [Rouge(float(i), 0.5, i / 10) for i in range(10)]
    assert bootstrap_median(scores) == bootstrap_median(scores)
    assert bootstrap_median(scores).f1 == pytest.approx(mean(scores).f1, abs=0.05)
    assert bootstrap_median(scores[:1]) == mean(scores[:1]) == scores[0]
    assert np.random.get_state()[1].tolist() == before


def test_the_dictionaries_write_nothing_into_home_or_the_common_temporary_folder(tmp_path):
    pytest.importorskip("pythainlp", reason="the extra seahelm is not installed")
    pytest.importorskip("jieba", reason="the extra seahelm is not installed")
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    code = (
        "from dudi_kit.evaluate.seahelm.tokens import chinese_words, thai_words;"
        "print(thai_words('ตลาดเก่า'), chinese_words('老市场'))"
    )
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "老" in done.stdout
    assert not [*home.iterdir(), *temporary.iterdir()]


def test_chinese_words():
    pytest.importorskip("jieba", reason="the extra seahelm is not installed")
    assert chinese_words("我来到北京") == ["我", "来到", "北京"]


def _by_table(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first, start=1):
        for j, b in enumerate(second, start=1):
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]
