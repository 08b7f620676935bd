import math

import pytest

from dudi_kit.errors import RunDirectoryError
from dudi_kit.evaluate.scores import BitsPerByte, load_answers, load_scores, mean_of


def test_bits_per_byte_by_hand():
    assert BitsPerByte(nats=8 * math.log(2), tokens=3, bytes=4).value == pytest.approx(2.0)


def test_the_mean_of_nothing_is_none_and_not_zero():
    assert mean_of({}) is None
    assert mean_of({"th": 1.0, "id": 3.0}).value == 2.0
    assert mean_of({"th": 1.0, "id": 3.0}).languages == ["id", "th"]


def test_a_damaged_file_names_itself_and_the_place(tmp_path):
    path = tmp_path / "after.json"
    path.write_text('{"tasks": {}, "bits_per_byte": {"th": {"nats": "many"}}}')
    with pytest.raises(RunDirectoryError, match=r"after\.json: damaged: bits_per_byte\.th\.nats"):
        load_scores(path)
    path.write_text("{}\n{")
    with pytest.raises(RunDirectoryError, match=r"after\.json:1: damaged"):
        load_answers(path)
