"""Tokenizers: load one that exists, train one on the recipe's own data, and tell two apart."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi_kit.data.sources import hub_error, require_hub_name
from dudi_kit.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# As GPT-4 splits, but marks (\p{M}) belong to words: without them every vowel sign of Tamil, Thai, Burmese, Khmer and
# Lao would end a word. Contractions are English only and left out.
WORDS = (
    r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+"  # a word with the space or sign in front of it
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

LONGEST_PIECE = 32
"""Bytes. Scripts without spaces would otherwise get whole sentences of a small corpus as single pieces."""


def load_tokenizer(source: str, revision: str | None = None, gguf_file: str | None = None) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder (an absolute path), a hub name or a GGUF file in one of the two.

    No code that comes with it is run. ModelError: there is none, or it can't be read; EnvironmentLack: the hub can't be
    reached.
    """
    from transformers import AutoTokenizer

    if os.path.isabs(source):
        _check_folder(Path(source), gguf_file)
    else:
        require_hub_name(source)
    options: dict[str, Any] = {} if gguf_file is None else {"gguf_file": gguf_file}
    if revision is not None:
        options["revision"] = revision
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:
        what = f"tokenizer of {source!r}" + (f" at revision {revision}" if revision else "")
        if os.path.isabs(source):
            raise ModelError(f"{what}: can't be read: {_first_lines(error)}") from error
        raise hub_error(what, error, ModelError) from error


def _check_folder(folder: Path, gguf_file: str | None) -> None:
    if not folder.is_dir():
        raise ModelError(f"tokenizer: no such folder: {folder}. Paths are relative to the recipe that names them.")
    if gguf_file is not None and not (folder / gguf_file).is_file():
        raise ModelError(f"tokenizer: no file {gguf_file!r} in {folder}. Check `model` and `gguf_file`.")


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> "PreTrainedTokenizerFast":
    """A byte-level BPE with ChatML's special pieces, trained on texts.

    vocabulary_size: most pieces it may have, the 256 bytes and three special ones included; a small corpus may give
    fewer. The same texts in the same order give the same tokenizer. `decode(encode(text)) == text` for any NFC text.
    DataError: no text at all.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        max_token_length=LONGEST_PIECE,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [text for text in texts if text]
    if not texts:
        raise DataError("tokenizer: there is no text to train it on. Check data.train.")
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[TURN_START, TURN_END],
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """sha256 of all that decides which ids a text becomes, for locks.

    Truncation and padding are left out: calling a tokenizer changes them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content: dict[str, Any] = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    else:
        content = json.loads(backend.to_str())
        content.pop("truncation", None)
        content.pop("padding", None)
    content["special"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
