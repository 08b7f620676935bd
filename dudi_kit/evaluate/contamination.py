"""Does the training text hold what is asked in the evaluation? n-gram overlap by item, task, language and source.

An item counts as contaminated where at least 70 % of its words lie in n-grams of the training text. n = 8 and
70 % are PaLM's (arXiv 2204.02311, section 8; it counts n-grams, not words). Subtleties:
- Words are those of `dudi_kit.data.words`. Vietnamese n-grams have 13 syllables, since a word has more than one.
- An item of fewer words than n is compared whole; one of fewer than four words says nothing, and is counted as such.
  Parts too short for an n-gram, such as a one-word answer beside a passage, do not count.
- A prompt's frame (“Answer with one word: …”) is the same in many items of a task and often in training, too. An n-gram
  that more than a fifth of a task's items in a language share is the frame's, and no item's; so are its words.
- Languages are not held apart: Malay text may give away an Indonesian item.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from dudi_kit.data.words import words
from dudi_kit.plan.layout import write_text

Source = Literal["training", "teacher", "demonstration"]
"""Rows of the corpus; texts that the teacher wrote; examples that the teacher is shown."""

WORDS_IN_A_ROW = 8
SYLLABLES_IN_A_ROW = 13
FEWEST_WORDS = 4
SHARE = 0.7
FRAME = 0.2
FEWEST_SHARING = 3
"""Items that share an n-gram before it can be the frame's: two may be about the same."""

FILE = "contamination.json"
"""Its name in the folder of an evaluation."""

Gram = tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """What is asked in an evaluation."""

    task: str
    language: str
    id: str
    texts: tuple[str, ...]
    """Its parts, such as passage, question and answer, without the prompt around them where that is known."""


@dataclass(frozen=True)
class Finding:
    """A contaminated item."""

    task: str
    language: str
    id: str
    share: float
    """Of its words that occur in n-grams of the training text."""

    sources: dict[Source, str]
    """Where its n-grams were first seen: source → place."""


@dataclass(frozen=True)
class Overlap:
    """One task in one language."""

    items: int
    too_short: int
    """Items of fewer than four words of their own, of which nothing can be said."""

    contaminated: int
    by_source: dict[Source, int]
    """Of the contaminated, those with n-grams from each source; an item may have several."""


@dataclass(frozen=True)
class Contamination:
    """All that was found."""

    overlaps: dict[str, dict[str, Overlap]]
    """Task → language."""

    findings: list[Finding]
    """The worst first."""

    @property
    def contaminated(self) -> int:
        """Items, over all tasks and languages."""
        return len(self.findings)


_CONTAMINATION = TypeAdapter(Contamination)


def save_contamination(found: Contamination, path: Path) -> None:
    """Write all of it as JSON, or nothing."""
    write_text(path, _CONTAMINATION.dump_json(found, indent=2).decode() + "\n")


def load_contamination(path: Path) -> Contamination:
    """Read what `save_contamination` wrote; ValueError where it is damaged."""
    return _CONTAMINATION.validate_json(path.read_bytes())


@dataclass
class _Judged:
    """An item on its way."""

    item: Item
    places: dict[Gram, list[int]]
    """N-gram → where it begins, counted over all parts."""

    length: int
    """Of its n-grams, in words."""

    own: set[int]
    """Places of its words, without those of the prompt's frame."""

    covered: set[int] = field(default_factory=set)
    sources: dict[Source, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        return len(self.covered) / len(self.own) if self.own else 0.0


class Detector:
    """Holds the n-grams of the evaluation, and looks for them in whatever it is shown: the corpus is never held."""

    def __init__(self, items: Iterable[Item]) -> None:
        groups: dict[tuple[str, str], list[_Judged]] = defaultdict(list)
        for item in items:
            groups[item.task, item.language].append(_judged(item))
        self._groups = {key: _without_frame(group) for key, group in groups.items()}
        self._holders: dict[Gram, list[_Judged]] = defaultdict(list)
        for group in self._groups.values():
            for judged in group:
                for gram in judged.places:
                    self._holders[gram].append(judged)
        self._lengths = sorted({len(gram) for gram in self._holders})

    def see(self, text: str, language: str, source: Source, place: str) -> None:
        """A text of the training. place: for people, such as `rows.jsonl:7`."""
        said = words(text, language)
        for length in self._lengths:
            for start in range(len(said) - length + 1):
                gram = tuple(said[start : start + length])
                for judged in self._holders.get(gram, ()):
                    _cover(judged, gram, source, place)

    def found(self) -> Contamination:
        """What the texts seen so far give away."""
        overlaps: dict[str, dict[str, Overlap]] = defaultdict(dict)
        findings: list[Finding] = []
        for (task, language), group in self._groups.items():
            bad = [judged for judged in group if judged.share >= SHARE]
            by_source = Counter(source for judged in bad for source in judged.sources)
            short = sum(not judged.places for judged in group)
            overlaps[task][language] = Overlap(len(group), short, len(bad), dict(by_source))
            findings += [Finding(task, language, j.item.id, j.share, j.sources) for j in bad]
        return Contamination(dict(overlaps), sorted(findings, key=lambda finding: -finding.share))


def _judged(item: Item) -> _Judged:
    """An item with the n-grams of its parts; none where it is too short."""
    parts = [words(text, item.language) for text in item.texts]
    wanted = SYLLABLES_IN_A_ROW if item.language == "vi" else WORDS_IN_A_ROW
    length = min(wanted, max(map(len, parts), default=0))
    places: dict[Gram, list[int]] = defaultdict(list)
    before = 0
    for part in parts if length >= FEWEST_WORDS else ():
        if len(part) < length:
            continue  # a one-word answer beside a passage
        for start in range(len(part) - length + 1):
            places[tuple(part[start : start + length])].append(before + start)
        before += len(part)
    return _Judged(item, dict(places), length, own=set(range(before)))


def _without_frame(group: Sequence[_Judged]) -> list[_Judged]:
    """Leave out the n-grams that many items share, and the words in them: what is left is the item's own.

    N-grams on the border of the frame stay, but count only with their own words. An item with fewer words of its own
    than an n-gram has could never be found by one, and says nothing.
    """
    holders = Counter(gram for judged in group for gram in judged.places)
    most = max(FRAME * len(group), FEWEST_SHARING - 1)
    for judged in group:
        shared = [gram for gram in judged.places if holders[gram] > most]
        frame = {start + i for gram in shared for start in judged.places.pop(gram) for i in range(judged.length)}
        judged.own -= frame
        if len(judged.own) < judged.length:
            judged.places.clear()
    return list(group)


def _cover(judged: _Judged, gram: Gram, source: Source, place: str) -> None:
    for start in judged.places[gram]:
        judged.covered.update(judged.own & set(range(start, start + judged.length)))
    judged.sources.setdefault(source, place)
