import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dudi_kit.data.tokenizers import LONGEST_PIECE, fingerprint, load_tokenizer, train_tokenizer
from dudi_kit.errors import DataError, EnvironmentLack, ModelError
from tests.data.tiny import SENTENCES, bos_tokenizer, chatml_tokenizer

TOKENIZER = chatml_tokenizer()


def round_trip(text: str) -> str:
    return TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("language", SENTENCES)
def test_decode_of_encode_is_the_text(language: str):
    text = unicodedata.normalize("NFC", SENTENCES[language])
    assert round_trip(text) == text


@given(st.text(max_size=40).map(lambda text: unicodedata.normalize("NFC", text)))
@settings(max_examples=200, deadline=None)
def test_decode_of_encode_is_any_nfc_text(text: str):
    assert round_trip(text) == text


def test_special_pieces_and_bytes_are_in_the_vocabulary():
    assert [TOKENIZER.convert_ids_to_tokens(i) for i in range(3)] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert TOKENIZER.eos_token_id == TOKENIZER.pad_token_id == 0
    assert TOKENIZER.bos_token_id is None
    assert 259 <= len(TOKENIZER) <= 600


def test_marks_belong_to_words_in_scripts_that_have_them():
    splits = TOKENIZER.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    assert len(splits("தூங்குகிறது")) == len(splits("เสื้อที่นี่")) == len(splits("ကြောင်")) == 1
    assert len(splits("a b")) == 2


def test_pieces_stay_short_in_scripts_without_spaces():
    tokenizer = train_tokenizer(["แมวตัวนั้นนอนหลับอยู่ใต้โต๊ะ"] * 50, 2000)
    ids = tokenizer("แมวตัวนั้นนอนหลับอยู่ใต้โต๊ะ")["input_ids"]
    assert max(len(tokenizer.decode([i]).encode()) for i in range(3, len(tokenizer))) <= LONGEST_PIECE
    assert len(ids) >= 3


def test_training_is_deterministic_and_bounded():
    texts = list(SENTENCES.values()) * 3
    first, second = train_tokenizer(texts, 400), train_tokenizer(iter(texts), 400)
    assert fingerprint(first) == fingerprint(second)
    assert len(first) == 400


def test_no_text_is_an_error():
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(["", ""], 400)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path):
    chatml_tokenizer().save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert fingerprint(loaded) == fingerprint(TOKENIZER)
    text = SENTENCES["my"] + "<|im_end|>"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]


def test_fingerprint_tells_tokenizers_apart_but_not_calls():
    tokenizer = chatml_tokenizer()
    before = fingerprint(tokenizer)
    tokenizer(["a", "b c"], padding="max_length", truncation=True, max_length=4)
    assert fingerprint(tokenizer) == before
    assert fingerprint(bos_tokenizer()) != before
    assert fingerprint(bos_tokenizer(eos_token="</turn>")) != fingerprint(bos_tokenizer())


def test_missing_folder_empty_folder_and_missing_gguf(tmp_path: Path):
    with pytest.raises(ModelError, match=r"no such folder: .*gone"):
        load_tokenizer(str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="can't be read"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(ModelError, match=r"no file 'x\.gguf'"):
        load_tokenizer(str(tmp_path), gguf_file="x.gguf")


def test_hub_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    import transformers

    def fail(*args, **kwargs):
        raise OSError("We couldn't connect") from ConnectionError("no route")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(EnvironmentLack, match=r"'owner/name' at revision abc: the hub can't be reached.*give its path"):
        load_tokenizer("owner/name", "abc")


def test_code_of_a_tokenizer_is_never_run(tmp_path: Path):
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}'
    )
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(ModelError):
        load_tokenizer(str(tmp_path))
    assert not (tmp_path / "ran").exists()
