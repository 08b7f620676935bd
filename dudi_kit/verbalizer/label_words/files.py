"""Files of label words: set → label → language → words, of which the first is the main one.

    sentiment:
      positive:
        en: [positive]
        id: [positif]

Read as recipes are, so that every mistake is told at once with its line. Errors are `InvalidRecipeError`.
"""

import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path as FilePath
from typing import NamedTuple

from dudi_kit.recipe.compose import read_file
from dudi_kit.recipe.diagnostics import InvalidRecipeError, Path, Problem, listed, shown, sort
from dudi_kit.recipe.languages import ALIASES, LANGUAGES
from dudi_kit.recipe.yaml_nodes import Node, Place, Source, lines_of, read_yaml

SHIPPED = FilePath(str(resources.files("dudi_kit.verbalizer") / "label_words"))
"""Where the tables that ship with dudi-kit lie."""


class Word(NamedTuple):
    """A word, and where it was written."""

    text: str
    """NFC."""

    place: Place

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.place.source.name}:{self.place.line}"


Spoken = Mapping[str, tuple[Word, ...]]
"""Language → words, the main one first."""


@dataclass(frozen=True)
class LabelSet:
    """The labels that an answer is one of."""

    name: str
    labels: Mapping[str, Spoken]

    def label_of(self, text: str, language: str) -> str | None:
        """The label that a text is a word for in this language, if it is one, whatever its capitals are."""
        return next(
            (
                label
                for label, spoken in self.labels.items()
                if any(folded(word.text) == folded(text) for word in spoken.get(language, ()))
            ),
            None,
        )

    @property
    def languages(self) -> frozenset[str]:
        """Languages that it has words for; the same for each label."""
        return frozenset(language for spoken in self.labels.values() for language in spoken)


def folded(text: str) -> str:
    """What two spellings of a word share: NFC, without capitals and outer spaces."""
    return unicodedata.normalize("NFC", text.casefold()).strip()


def label_sets(own: str | None) -> dict[str, LabelSet]:
    """Every set by its name: those that ship, and those of the user's file, which take the place of a shipped one."""
    sets: dict[str, LabelSet] = {}
    for path in sorted(SHIPPED.glob("*.yaml")):
        sets |= read_label_words(path)
    return sets | (read_label_words(FilePath(own)) if own else {})


def read_label_words(path: FilePath) -> dict[str, LabelSet]:
    """The sets of one file. InvalidRecipeError: all of its mistakes, with their lines."""
    text = read_file(path)
    source = Source(os.path.normpath(path), path.parent, lines_of(text))
    reading = read_yaml(text, source)
    findings = [*reading.findings, *(place.finding(problem) for place, problem in _mistakes(reading.root))]
    if findings:
        raise InvalidRecipeError(sort(findings))
    return {name: LabelSet(name, _labels(node)) for name, node in _items(reading.root)}


def _labels(labels: Node) -> dict[str, Spoken]:
    return {
        label: {language: tuple(_word(word) for word in _list(words)) for language, words in _items(spoken)}
        for label, spoken in _items(labels)
    }


def _word(node: Node) -> Word:
    return Word(unicodedata.normalize("NFC", str(node.value)), node.place)


def _items(node: Node) -> list[tuple[str, Node]]:
    return list(node.value.items()) if isinstance(node.value, dict) else []


def _list(node: Node) -> list[Node]:
    return node.value if isinstance(node.value, list) else []


# What can be wrong

Mistake = tuple[Place, Problem]


def _mistakes(root: Node) -> Iterator[Mistake]:
    yield from _shape(root, (), "set → label → language → words")
    for name, labels in _items(root):
        yield from _shape(labels, (name,), "label → language → words")
        for label, spoken in _items(labels):
            yield from _shape(spoken, (name, label), "language → words")
            for language, words in _items(spoken):
                yield from _word_mistakes(words, (name, label, language))
        yield from _set_mistakes(name, labels)


def _shape(node: Node, path: Path, expected: str) -> Iterator[Mistake]:
    if node.flawed or (isinstance(node.value, dict) and node.value):
        return
    found = "an empty mapping" if node.value == {} else shown(node.plain())
    yield node.key or node.place, Problem(path, "type", f"expected a mapping, {expected}; found {found}")


def _word_mistakes(words: Node, path: Path) -> Iterator[Mistake]:
    language = path[-1]
    if language not in LANGUAGES:
        hint = f"it is written {ALIASES[str(language)]!r} here" if language in ALIASES else f"one of {_codes()}"
        yield words.key or words.place, Problem(path, "language", "unknown language code", hint)
    if not _list(words) and not words.flawed:
        yield words.key or words.place, Problem(path, "type", "expected a list of words", "as in [ya, iya]")
    for i, word in enumerate(_list(words)):
        if word.flawed:
            continue
        if not isinstance(word.value, str):
            hint = "put a number or true in quotes if it is a word"
            yield word.place, Problem((*path, i), "type", f"expected a word, found {shown(word.plain())}", hint)
        elif word.value != word.value.strip() or not word.value:
            yield word.place, Problem((*path, i), "word", "a word is empty, or has spaces around it", "remove them")


def _codes() -> str:
    return " ".join(LANGUAGES)


def _set_mistakes(name: str, labels: Node) -> Iterator[Mistake]:
    """Words that stand twice, and labels that lack a language which others of the set have."""
    everywhere = {language for _, spoken in _items(labels) for language, _ in _items(spoken)}
    first: dict[tuple[str, str], tuple[str, Place]] = {}
    for label, spoken in _items(labels):
        missing = sorted(everywhere - {language for language, _ in _items(spoken)})
        if missing and isinstance(spoken.value, dict):
            message = f"no word in {listed(missing)}, which other labels of {name} have words in"
            yield spoken.key or spoken.place, Problem((name, label), "missing-language", message)
        for language, words in _items(spoken):
            for i, word in enumerate(_list(words)):
                if not isinstance(word.value, str):
                    continue
                other, place = first.setdefault((language, folded(word.value)), (label, word.place))
                if place is not word.place:
                    what = "is here twice" if other == label else f"stands for {other!r} too"
                    message = f"the word {word.value!r} {what} (line {place.line})"
                    hint = "a word says one label in a language, whatever its capitals are"
                    yield word.place, Problem((name, label, language, i), "duplicate-word", message, hint)
