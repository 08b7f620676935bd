"""Real tokenizers and real text for the benchmarks of the vocabulary mapping; both are named on the command line.

Tokenizers: a folder with a tokenizer.json, or folder/file.gguf. Text: SIB-200 (https://github.com/dadelani/sib-200), a
folder for each language with train.tsv and test.tsv.
"""

import csv
from pathlib import Path
from typing import Any

from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.verbalizer.vocabulary.mapping import Speaker, Wish, decide
from dudi_kit.verbalizer.vocabulary.meeting import Meets

LANGUAGES = ("id", "vi", "th", "ta", "tl", "ms", "my", "jv", "su", "km", "lo")


def tokenizer(path: str) -> Any:
    place = Path(path).resolve()
    return (
        load_tokenizer(str(place.parent), gguf_file=place.name)
        if place.suffix == ".gguf"
        else load_tokenizer(str(place))
    )


def sentences(folder: str, language: str, split: str = "train") -> list[str]:
    with (Path(folder) / language / f"{split}.tsv").open(encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def tokenise(made: Any, text: str) -> list[int]:
    return list(made(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"])


def speaker(name: str, made: Any, rows: int | None = None) -> Speaker:
    end = made.eos_token_id
    return Speaker(name, made.get_vocab(), rows or len(made), end, (end,), made, lambda text: tokenise(made, text))


def aligned(student: Any, teacher: Any, meets: Meets = "exact", teacher_rows: int | None = None) -> Any:
    """The joint vocabulary of two tokenizers."""
    return decide(speaker("student", student), speaker("teacher", teacher, teacher_rows), Wish("align", meets))
