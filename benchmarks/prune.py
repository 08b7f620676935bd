"""What is left of a tokenizer and a model that are trimmed to some texts, and what that costs on others.

    python -m benchmarks.prune tokenizers DATA NAME=TOKENIZER …
    python -m benchmarks.prune bits DATA FOLDER FILE.gguf [--sentences 10]

DATA holds sib200 (a folder for each language with train.tsv and test.tsv) and, to widen the texts, cultural_chat
(LANGUAGE.jsonl), nusax/mt, talpco and libreoffice_help. Pieces are chosen by SIB-200's train sentences alone, or by all
of that; counted are the sentences of its test split, by which nothing is chosen, that are segmented as before. `bits`
measures a model's bits per byte on them, whole and with each trimmed vocabulary.
"""

import argparse
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import AutoConfig

from benchmarks.pairs import sentences, tokenise, tokenizer
from dudi_kit.data.trim import Pieces
from dudi_kit.models.loading import load_model
from dudi_kit.models.prune import Cut, cut_config, cut_weights

LANGUAGES = ("id", "vi", "th", "ta", "tl", "ms", "my", "jv", "su", "km", "lo")


class Trimmed(NamedTuple):
    tokenizer: Any
    rows: list[int]


def wider(data: Path) -> Iterator[str]:
    """Texts of other sources than SIB-200."""
    for file in sorted((data / "cultural_chat").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield from (row["prompt"], row["response"])
    for file, mark in [
        *((data / "nusax" / "mt" / f"{split}.csv", ",") for split in ("train", "valid")),
        (data / "talpco" / "talpco.tsv", "\t"),
        (data / "libreoffice_help" / "help.en-id-vi-km.tsv", "\t"),
    ]:
        with file.open(encoding="utf-8") as rows:
            for row in csv.DictReader(rows, delimiter=mark):
                yield from (text for text in row.values() if text)


def trimmed(whole: Any, texts: Iterable[str], rows: int) -> Trimmed:
    texts = list(texts)
    pieces = Pieces(whole, rows)
    used = {i for text in texts for i in tokenise(whole, text)}
    return Trimmed(*pieces.trimmed(pieces.closed(used) | pieces.always(set().union(*texts)), lambda folder: None))


def same(whole: Any, small: Trimmed, texts: Sequence[str]) -> tuple[float, float]:
    """(share of texts segmented as before, tokens after for each token before)."""
    before, after = ([tokenise(made, text) for text in texts] for made in (whole, small.tokenizer))
    alike = sum(a == [small.rows[i] for i in b] for a, b in zip(before, after, strict=True))
    return alike / len(texts), sum(map(len, after)) / sum(map(len, before))


def kinds(data: Path, whole: Any, rows: int) -> dict[str, tuple[Trimmed, list[str]]]:
    own = [text for code in LANGUAGES for text in sentences(str(data / "sib200"), code)]
    wide = [*own, *wider(data)]
    return {"SIB-200 train": (trimmed(whole, own, rows), own), "all texts": (trimmed(whole, wide, rows), wide)}


def show_tokenizers(data: Path, named: Sequence[str]) -> None:
    print("| tokenizer | chosen by | texts | pieces | of | as before | " + " | ".join(LANGUAGES) + " |")
    print("|---|---|---:|---:|---:|---:|" + "---:|" * len(LANGUAGES))
    for pair in named:
        name, place = pair.split("=", 1)
        whole = tokenizer(place)
        for by, (small, texts) in kinds(data, whole, len(whole)).items():
            shares = [same(whole, small, sentences(str(data / "sib200"), code, "test")) for code in LANGUAGES]
            cells = " | ".join(f"{share:.0%} {tokens - 1:+.1%}" for share, tokens in shares)
            own, _ = same(whole, small, texts)
            print(
                f"| {name} | {by} | {len(texts):,} | {len(small.rows):,} | {len(whole):,} | {own:.2%} | {cells} |",
                flush=True,
            )


@torch.inference_mode()
def bits(model: Any, made: Any, texts: Sequence[str]) -> float:
    """Bits for each byte of texts that begin after the piece that begins every text."""
    nats, size = 0.0, 0
    for text in texts:
        ids = torch.tensor([[made.bos_token_id, *tokenise(made, text)]])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        nats += float(functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        size += len(text.encode())
    return nats / size / log(2)


def show_bits(data: Path, folder: Path, file: str, count: int) -> None:
    whole = tokenizer(str(folder / file))
    model = load_model(str(folder), who="model", dtype="fp32", gguf_file=file).eval()
    config = AutoConfig.from_pretrained(folder, gguf_file=file)
    tests = {code: sentences(str(data / "sib200"), code, "test")[:count] for code in (*LANGUAGES, "en")}
    print("| pieces | parameters | " + " | ".join(tests) + " |\n|---:|---:|" + "---:|" * len(tests))

    def row(made: Any, asked: Any) -> None:
        cells = " | ".join(f"{bits(asked, made, texts):.3f}" for texts in tests.values())
        print(f"| {asked.config.vocab_size:,} | {asked.num_parameters() / 1e6:.1f} M | {cells} |", flush=True)

    row(whole, model)
    layers = tuple(range(config.num_hidden_layers))
    for small, _ in kinds(data, whole, config.vocab_size).values():
        cut = Cut(layers, tuple(small.rows))
        made = type(model)(cut_config(config, cut))
        made.load_state_dict(cut_weights(config, cut, {}, lambda: model), strict=False)
        made.tie_weights()
        row(small.tokenizer, made.eval())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tokenizers", "bits"))
    parser.add_argument("data", type=Path)
    parser.add_argument("rest", nargs="+")
    parser.add_argument("--sentences", type=int, default=10)
    asked = parser.parse_args()
    if asked.what == "tokenizers":
        show_tokenizers(asked.data, asked.rest)
    else:
        folder, file = asked.rest
        show_bits(asked.data, Path(folder), file, asked.sentences)


if __name__ == "__main__":
    main()
