"""Tokenizers of three families, small enough to work out by hand."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dudi_kit.verbalizer.vocabulary.mapping import Speaker
from dudi_kit.verbalizer.vocabulary.spelling import letters_of

BYTES = [letters_of(bytes([byte])) for byte in range(256)]
END = "<end>"


def _merges(pieces: Sequence[str], known: set[str]) -> list[tuple[str, str]]:
    """A way to make each piece of two that are known before it."""
    merges = []
    for piece in sorted(pieces, key=len):
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        merges.append(next(cut for cut in cuts if cut[0] in known and cut[1] in known))
        known.add(piece)
    return merges


def fast(tokenizer: Tokenizer, end: str = END) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end)


def byte_level(*texts: str, end: str = END, nfc: bool = False) -> Any:
    """Bytes, and the texts as pieces; with those on the way to them, letter by letter from the left."""
    pieces = _prefixes([letters_of(text.encode()) for text in texts])
    vocabulary = {piece: i for i, piece in enumerate([*BYTES, *pieces])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=_merges(pieces, set(BYTES))))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    return fast(tokenizer, end)


def sentencepiece(*texts: str, letters: str = "", end: str = END, prefix_space: bool = False) -> Any:
    """Byte pieces, letters, and the texts as pieces."""
    single = sorted({*letters, *"".join(texts), " "})
    pieces = _prefixes([text.replace(" ", "▁") for text in texts])
    marks = [letter.replace(" ", "▁") for letter in single]
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *marks, *pieces]
    vocabulary = {piece: i for i, piece in enumerate(names)}
    merges = _merges(pieces, set(marks))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix_space else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    ends: list[Any] = [decoders.Strip(" ", 1, 0)] if prefix_space else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *ends])
    return fast(tokenizer, end)


def wordpiece(*pieces: str, end: str = END) -> Any:
    vocabulary = {piece: i for i, piece in enumerate(["[UNK]", *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return fast(tokenizer, end)


def _prefixes(texts: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for text in texts:
        found |= {text[:i]: None for i in range(2, len(text) + 1)}
    return list(found)


def tokenise(made: Any, text: str) -> list[int]:
    return list(made(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def speaker(made: Any, name: str = "tiny", rows: int | None = None) -> Speaker:
    end = made.eos_token_id
    return Speaker(name, made.get_vocab(), rows or len(made), end, (end,), made, lambda text: tokenise(made, text))
