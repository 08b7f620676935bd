"""Trimmed tokenizers of each kind write their texts as before, and any other text somehow."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from dudi_kit.data.tokenizers import fingerprint, load_tokenizer, train_tokenizer
from dudi_kit.data.trim import Pieces
from dudi_kit.errors import ModelError
from tests.data.tiny import SENTENCES

WORDS = sorted({word for text in SENTENCES.values() for word in text.split()})
CORPUS = [*SENTENCES.values(), *WORDS] * 3
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def sentencepiece(model: Any, merges: Any = None) -> PreTrainedTokenizerFast:
    """As Gemma's: spaces are ▁, letters that are no piece are bytes, and <bos> comes in front."""
    made = Tokenizer(model)
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    made.add_special_tokens([*SPECIAL, "<unused7>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )


def learned_bpe() -> tuple[list[str], list[tuple[str, str]]]:
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, show_progress=False))
    content = json.loads(learner.to_str())["model"]
    return list(content["vocab"]), [tuple(pair) for pair in content["merges"]]


def byte_fallback() -> PreTrainedTokenizerFast:
    pieces, merges = learned_bpe()
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, "<unused7>", *BYTES, *pieces])}
    return sentencepiece(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))


def whole_words() -> PreTrainedTokenizerFast:
    """As Llama 3's: a word that is a piece is written so, whatever its merges would make of it."""
    made = train_tokenizer(CORPUS, 600)
    content = json.loads(made.backend_tokenizer.to_str())
    content["model"]["ignore_merges"] = True
    content["model"]["merges"] = content["model"]["merges"][:-60]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), eos_token="<|endoftext|>")


def unigram() -> PreTrainedTokenizerFast:
    learner = Tokenizer(models.Unigram())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=500, show_progress=False))
    learned = json.loads(learner.to_str())["model"]["vocab"]
    scored = [(piece, 0.0) for piece in [*SPECIAL, "<unused7>"]] + [(byte, -30.0) for byte in BYTES]
    return sentencepiece(models.Unigram([*scored, *map(tuple, learned)], unk_id=3, byte_fallback=True))


KINDS: dict[str, Any] = {
    "byte-level": train_tokenizer(CORPUS, 700),
    "byte fallback": byte_fallback(),
    "whole words": whole_words(),
    "unigram": unigram(),
}


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def trim(tokenizer: Any, texts: list[str], rows: int = 10**6) -> tuple[Any, list[int]]:
    pieces = Pieces(tokenizer, rows)
    used = {i for text in texts for i in ids(tokenizer, text)}
    return pieces.trimmed(pieces.closed(used) | pieces.always(set().union(*texts)), lambda folder: None)


TRIMMED = {name: trim(tokenizer, WORDS[::3]) for name, tokenizer in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
@given(chosen=st.sets(st.sampled_from(WORDS), min_size=1, max_size=12), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_texts_that_pieces_were_chosen_by_are_segmented_as_before(kind: str, chosen: set[str], seed: int) -> None:
    words = random.Random(seed).choices(sorted(chosen), k=20)
    texts = [" ".join(words[i : i + 4]) for i in range(0, 20, 4)]
    made, old_ids = trim(KINDS[kind], texts)
    assert [[old_ids[i] for i in ids(made, text)] for text in texts] == [ids(KINDS[kind], text) for text in texts]
    assert made.convert_ids_to_tokens(range(len(made))) == KINDS[kind].convert_ids_to_tokens(old_ids)


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_text_can_be_written_and_read(kind: str, text: str) -> None:
    whole, (made, _) = KINDS[kind], TRIMMED[kind]
    assert made.decode(ids(made, text)) == whole.decode(ids(whole, text))


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_go_and_ids_stay_in_order(kind: str) -> None:
    made, old_ids = TRIMMED[kind]
    assert len(made) == len(old_ids) < len(KINDS[kind])
    assert old_ids == sorted(old_ids)
    for role, piece in KINDS[kind].special_tokens_map.items():
        assert made.special_tokens_map[role] == piece
        assert old_ids[made.convert_tokens_to_ids(piece)] == KINDS[kind].convert_tokens_to_ids(piece)


def test_without_its_parts_a_piece_would_not_come_about() -> None:
    """What closure is for: the used pieces alone give other segmentations."""
    pieces = Pieces(KINDS["byte-level"], 10**6)
    used = {i for text in CORPUS for i in ids(KINDS["byte-level"], text)}
    bare, old_ids = pieces.trimmed(used | pieces.always(()), lambda folder: None)
    texts = [text for text in CORPUS if [old_ids[i] for i in ids(bare, text)] != ids(KINDS["byte-level"], text)]
    assert texts
    assert pieces.closed(used) > used


@pytest.mark.parametrize("kind", ["byte fallback", "unigram"])
def test_what_the_tokenizer_puts_in_front_has_its_new_id(kind: str) -> None:
    made, old_ids = TRIMMED[kind]
    first = made("a")["input_ids"][0]
    assert (first, old_ids[first]) == (made.bos_token_id, 2)


def test_placeholders_go_unless_a_text_uses_one() -> None:
    whole = KINDS["byte fallback"]
    assert "<unused7>" not in TRIMMED["byte fallback"][0].get_vocab()
    assert "<unused7>" in trim(whole, ["a<unused7>"])[0].get_vocab()


def test_pieces_beyond_the_models_rows_go() -> None:
    whole = KINDS["byte-level"]
    made, old_ids = trim(whole, list(SENTENCES.values()), rows=500)
    assert max(old_ids) < 500
    assert made.decode(ids(made, SENTENCES["th"])) == whole.decode(ids(whole, SENTENCES["th"]))


def test_letters_of_the_texts_own_scripts_stay_and_strays_bring_none() -> None:
    whole = train_tokenizer(["ก ข ค ง จ ฉ ช ซ ฌ ญ ฎ ฏ а б в г д е ж з и й"] * 3, 400)
    kept = Pieces(whole, 10**6).always("กขคงจฉชซ а")
    texts = {whole.decode([i]).strip() for i in kept}
    assert {"ญ", "ฎ", "ฏ"} <= texts
    assert "ж" not in texts


@pytest.mark.parametrize("config", [LlamaConfig, Qwen2Config])
def test_a_folder_that_transformers_reads_with_other_rules_is_refused(config: Any) -> None:
    """transformers gives a Qwen2 folder Qwen's word splitting, which our own tokenizers do not have."""
    whole = KINDS["byte-level"]
    pieces = Pieces(whole, 10**6)
    kept = pieces.always("กขคงจฉชซ")
    if config is LlamaConfig:
        made, _ = pieces.trimmed(kept, config().save_pretrained)
        assert made.backend_tokenizer.pre_tokenizer is not None
        return
    with pytest.raises(ModelError, match="other rules"):
        pieces.trimmed(kept, config().save_pretrained)


def test_it_is_read_back_as_it_is(tmp_path: Path) -> None:
    for kind, (made, _) in TRIMMED.items():
        made.save_pretrained(tmp_path / kind)
        again = load_tokenizer(str(tmp_path / kind))
        assert fingerprint(again) == fingerprint(made)
        assert [ids(again, text) for text in CORPUS] == [ids(made, text) for text in CORPUS]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"), "WordPiece"),
        (models.WordLevel({"a": 0}, unk_token="a"), "WordLevel"),
        (models.BPE({"a</w>": 0}, [], end_of_word_suffix="</w>"), "</w>"),
    ],
)
def test_other_kinds_are_refused(model: Any, reason: str) -> None:
    with pytest.raises(ModelError, match=f"(?s)can't be trimmed.*{reason}.*vocabulary: all"):
        Pieces(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model)), 10)
