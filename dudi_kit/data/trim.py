"""A tokenizer without the pieces that some texts have no use for.

What it keeps is closed under parts: a BPE piece stays with every piece on the way that its merges make it, so that the
smaller tokenizer takes the same way. Both work by the same rule, the earliest merge first, and the merges that are left
keep their order; as long as all merges that a text needs are there, none that is gone could have come before them. A
Unigram tokenizer picks the likeliest pieces, which stay the likeliest among fewer. So texts whose pieces were all kept
are segmented as before, and other texts are written with the pieces, letters and bytes that there are.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi_kit.data.tokenizers import fingerprint, load_tokenizer
from dudi_kit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""How SentencePiece writes a byte that is part of no piece."""

PLACEHOLDER = re.compile(r"\W*(unused|reserved_special_token_)\d+\W*")
"""Special pieces that stand for nothing yet: thousands in Gemma, hundreds in Llama 3. They go unless a text has one."""

BLOCK, AT_HOME = 7, 8
"""Bits of a code point inside a block, since scripts lie in rows of 128; and how many different letters of a block are
no accident, so that texts with the others will come."""

CONTINUED = ("continuing_subword_prefix", "end_of_word_suffix")


class Pieces:
    """The pieces of a fast tokenizer, and which of them need which.

    rows: ids from there on have no row in the model's embedding; they are never kept.
    ModelError: the tokenizer is of a kind that can't be trimmed.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", rows: int) -> None:
        self.tokenizer, self.rows = tokenizer, rows
        self.content: dict[str, Any] = _content(tokenizer)
        self.model: dict[str, Any] = self.content["model"]
        self.is_bpe = self.model["type"] == "BPE"
        self.vocabulary: dict[str, int] = (
            self.model["vocab"] if self.is_bpe else {piece: i for i, (piece, _) in enumerate(self.model["vocab"])}
        )
        self.spelt = {i: piece for piece, i in self.vocabulary.items()}
        self._ranks = {pair: rank for rank, pair in enumerate(_pairs(self.model))} if self.is_bpe else {}
        self._parts: dict[int, frozenset[int]] = {}

    def closed(self, used: Iterable[int]) -> set[int]:
        """The pieces with all those that they are made from."""
        return {part for piece in used for part in self.parts(piece)}

    def parts(self, piece: int) -> frozenset[int]:
        """A piece and every piece that stands somewhere on the way to it."""
        if piece not in self._parts:
            text = self.spelt.get(piece)
            below = _derivation(text, self.vocabulary, self._ranks) if text is not None else []
            self._parts[piece] = frozenset({piece, *below})
        return self._parts[piece]

    def always(self, letters: Iterable[str]) -> set[int]:
        """What any text may need: bytes, special pieces, and all letters of the scripts that `letters` are of."""
        from tokenizers import pre_tokenizers

        alphabet = set(pre_tokenizers.ByteLevel.alphabet())
        counts = Counter(ord(letter) >> BLOCK for letter in set(letters))
        blocks = {block for block, different in counts.items() if different >= AT_HOME}
        kept = _special(self.tokenizer, self.content)
        for piece, i in self.vocabulary.items():
            if piece in alphabet or BYTE.fullmatch(piece) or _in_blocks(self._text(piece), blocks):
                kept |= self.parts(i)
        if not self.is_bpe:
            # An unknown letter costs a fixed amount more than the least likely piece.
            kept.add(min(range(len(self.model["vocab"])), key=lambda i: self.model["vocab"][i][1]))
            kept |= {self.model["unk_id"]} - {None}
        return kept

    def _text(self, piece: str) -> str:
        decoder = self.tokenizer.backend_tokenizer.decoder
        return str(decoder.decode([piece])) if decoder is not None else piece

    def trimmed(
        self, kept: Set[int], save_config: Callable[[Path], object]
    ) -> "tuple[PreTrainedTokenizerBase, list[int]]":
        """The tokenizer with these pieces alone, and the old id of each new one.

        It is what transformers reads from the folder of the smaller model. save_config: writes that model's
        configuration, whose family may have a say in it. ModelError: what is read is not what was written.
        """
        old_ids = sorted(i for i in kept if i < self.rows)
        content = _renumbered(self.content, {old: new for new, old in enumerate(old_ids)})
        with tempfile.TemporaryDirectory() as folder:
            alone, beside = Path(folder, "alone"), Path(folder, "beside")
            for place in (alone, beside):
                self.tokenizer.save_pretrained(place)
                _write(place, content)
            save_config(beside)
            made, again = load_tokenizer(str(alone)), load_tokenizer(str(beside))
        if _content(made)["model"] != content["model"] or fingerprint(made) != fingerprint(again):
            raise ModelError(
                "student.vocabulary: this tokenizer can't be trimmed: transformers reads it back with other rules. Set "
                "vocabulary: all."
            )
        _check_ids(made, self.tokenizer, old_ids)
        return made, old_ids


def _content(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """tokenizer.json; ModelError for what can't be trimmed."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refusal(f"{type(tokenizer).__name__} has no tokenizer.json")
    content: dict[str, Any] = json.loads(backend.to_str())
    model = content["model"]
    if model["type"] not in ("BPE", "Unigram"):
        raise _refusal(f"it is a {model['type']} tokenizer, and only BPE and Unigram ones can")
    if marked := next((name for name in CONTINUED if model.get(name)), None):
        raise _refusal(f"its pieces are marked by {marked}: {model[marked]!r}")
    return content


def _refusal(reason: str) -> ModelError:
    return ModelError(f"student.vocabulary: the vocabulary can't be trimmed: {reason}. Set vocabulary: all.")


def _pairs(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    split = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    return [(left, right) for left, right in split]


def _derivation(piece: str, vocabulary: Mapping[str, int], ranks: Mapping[tuple[str, str], int]) -> list[int]:
    """Ids of all that stands on the way from the letters of a piece to what its merges make of them.

    Inside a text it is the same way: no merge went across the ends of a piece that is there in the end.
    """
    parts = list(piece)
    seen = [vocabulary[part] for part in parts if part in vocabulary]
    while len(parts) > 1:
        at = min(range(len(parts) - 1), key=lambda i: ranks.get((parts[i], parts[i + 1]), len(ranks)))
        if (parts[at], parts[at + 1]) not in ranks:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        seen.append(vocabulary[parts[at]])
    return seen


def _special(tokenizer: "PreTrainedTokenizerBase", content: Mapping[str, Any]) -> set[int]:
    """Special pieces, and those that the tokenizer itself puts around a text."""
    kept = set(tokenizer.convert_tokens_to_ids(list(tokenizer.special_tokens_map.values())))
    kept |= {
        added["id"]
        for added in content["added_tokens"]
        if added["special"] and not PLACEHOLDER.fullmatch(added["content"])
    }
    return kept | {i for processor in _processors(content["post_processor"]) for i in _ids(processor)}


def _processors(processor: dict[str, Any] | None) -> list[dict[str, Any]]:
    if processor is None:
        return []
    return processor["processors"] if processor["type"] == "Sequence" else [processor]


def _ids(processor: Mapping[str, Any]) -> list[int]:
    pairs = [processor[name][1] for name in ("sep", "cls") if name in processor]
    return pairs + [i for token in _template(processor).values() for i in token["ids"]]


def _template(processor: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return processor["special_tokens"] if processor["type"] == "TemplateProcessing" else {}


def _in_blocks(text: str, blocks: Collection[int]) -> bool:
    letter = text.strip() or text
    return len(letter) == 1 and ord(letter) >> BLOCK in blocks


def _renumbered(content: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """tokenizer.json with these pieces alone. new: old id → new id, in the same order."""
    made: dict[str, Any] = json.loads(json.dumps(content))
    model = made["model"]
    if model["type"] == "BPE":
        model["vocab"] = {piece: new[i] for piece, i in model["vocab"].items() if i in new}
        left = model["vocab"]
        model["merges"] = [[a, b] for a, b in _pairs(model) if a in left and b in left and a + b in left]
    else:
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new]
        model["unk_id"] = new.get(model["unk_id"])
    made["added_tokens"] = [{**added, "id": new[added["id"]]} for added in made["added_tokens"] if added["id"] in new]
    made["padding"] = made["truncation"] = None
    for processor in _processors(made["post_processor"]):
        for name in ("sep", "cls"):
            if name in processor:
                processor[name][1] = new[processor[name][1]]
        for token in _template(processor).values():
            token["ids"] = [new[i] for i in token["ids"]]
    return made


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    """Put a trimmed tokenizer.json in place of the whole one; no other file may name a piece that is gone."""
    for file in folder.iterdir():
        if file.name not in ("tokenizer_config.json", "chat_template.jinja"):
            file.unlink()
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    model = content["model"]["vocab"]
    left = {piece for piece, _ in model} if isinstance(model, list) else set(model)
    left |= {added["content"] for added in content["added_tokens"]}
    file = folder / "tokenizer_config.json"
    settings = {name: _left(name, value, left) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
    file.write_text(
        json.dumps({name: value for name, value in settings.items() if value is not None}), encoding="utf-8"
    )


def _left(name: str, value: Any, left: Set[str]) -> Any:
    """A setting of the tokenizer without the pieces that are gone; None where nothing is left of it."""
    if name.endswith("_token") and isinstance(value, str):
        return value if value in left else None
    if name.endswith("_special_tokens") and isinstance(value, list):
        return [piece for piece in value if str(piece) in left]
    if name.endswith("_special_tokens") and isinstance(value, dict):
        return {role: piece for role, piece in value.items() if str(piece) in left}
    return value


def _check_ids(made: "PreTrainedTokenizerBase", whole: "PreTrainedTokenizerBase", old_ids: list[int]) -> None:
    pieces = whole.convert_ids_to_tokens(old_ids)
    wrong = [i for i, piece in enumerate(pieces) if made.convert_tokens_to_ids(piece) != i]
    if wrong or len(made) != len(old_ids):
        found = f"piece {pieces[wrong[0]]!r} is no longer number {wrong[0]:,}" if wrong else f"{len(made):,} pieces"
        raise _refusal(f"of {len(old_ids):,} pieces that stay, transformers reads back {found}")
