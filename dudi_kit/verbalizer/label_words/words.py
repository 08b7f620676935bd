"""Which pieces say a label in the teacher's tokenizer: whose mass moves, and along which pieces it goes on.

For a row in language ℓ that declares its set, the *target* of a label is one word: the one that the responses of the
row's dataset use most in ℓ, spelt as they spell it, else the main word of the table. All words of all other languages
are *sources*. A word begins with a piece, also when its first letter is a capital and when a space precedes it; a
source's mass is that of its first piece, since the teacher is asked once and where it begins to answer. So a piece
stays where it is, if it

- begins a word of ℓ itself, whichever label that is for: the teacher speaks the right language already;
- begins words of more than one label ("เชิง" of เชิงบวก and เชิงลบ): what it means to say is open;
- says less than half of the word ("B" of *Biyahe*, a part of a letter, a lone space): it begins too much else.

Words of which no piece moves are *ambiguous*: better left alone than moved to the wrong label.

All pieces are the teacher's own. A mapping to other pieces (`remap`, `align`) comes after, so that both compose.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import ModelError, RecipeError
from dudi_kit.recipe.diagnostics import listed, nearest
from dudi_kit.verbalizer.label_words.files import LabelSet, Word

FEW = 5
"""Words that a notice names; plan.json has all."""


class Moves(NamedTuple):
    """What moves in rows of one dataset, set and language. Pieces are the teacher's."""

    sources: tuple[tuple[int, ...], ...]
    """Of each label: pieces whose mass moves."""

    targets: tuple[tuple[int, ...], ...]
    """Of each label, in the same order: the pieces of the word that the mass goes on as."""

    own: tuple[int, ...]
    """Pieces that say half or more of a word of the row's own language, for any label: to see how much is right."""


@dataclass
class Declared:
    """One dataset's rows of one set and language, as the plan shows them."""

    dataset: str
    set: str
    language: str
    rows: int = 0
    targets: dict[str, str] = field(default_factory=dict)
    """Label → word."""

    ambiguous: list[str] = field(default_factory=list)
    """Words of other languages that stay, since their first piece does not tell the label, as `th เชิงบวก`."""

    unsayable: list[str] = field(default_factory=list)
    """Words of other languages that the teacher's tokenizer can't write."""


Spelt = tuple[str, str, Word]
"""Label, language, word."""

BROKEN = "\ufffd"
"""What a part of a letter decodes to."""


class Group(NamedTuple):
    """What rows must share to share their moves."""

    dataset: str
    set: str
    language: str


class LabelWords:
    """Finds the moves of every training row that declares its label set."""

    def __init__(
        self,
        sets: Mapping[str, LabelSet],
        teacher: Encoder,
        student: Encoder,
        examples: Sequence[Example],
        ledger: Ledger,
    ) -> None:
        """ModelError: a target that one of the two can't write. RecipeError: a language without words."""
        self.sets, self.teacher, self.student = sets, teacher, student
        self.declared: list[Declared] = []
        self._moves: dict[Group, Moves] = {}
        self._firsts: dict[str, dict[int, bool]] = {}
        by_group: dict[Group, list[Example]] = {}
        for example in examples:
            if example.labels in sets:
                by_group.setdefault(_group(example), []).append(example)
            elif example.labels is not None:
                case = f"{example.origin}: {example.labels!r}"
                ledger.count("row that names no known set of label words", example.language, case)
        for group, rows in by_group.items():
            self._moves[group] = self._prepare(group, rows, ledger)

    def moves(self, example: Example) -> Moves | None:
        """What moves in this row; None where it declares no known set."""
        return self._moves.get(_group(example)) if example.labels is not None else None

    def lines(self) -> list[str]:
        """What the plan says: how many rows of which set, and which words of other languages stay where they are."""
        told = []
        for dataset, name in sorted({(declared.dataset, declared.set) for declared in self.declared}):
            here = [d for d in self.declared if (d.dataset, d.set) == (dataset, name)]
            rows = ", ".join(f"{d.language} {d.rows:,}" for d in sorted(here, key=lambda d: d.language))
            told.append(f"label words of {name} for {sum(d.rows for d in here):,} rows of {dataset} ({rows})")
            for what, found in (
                (
                    "stay where they are, their first piece does not tell the label",
                    {w for d in here for w in d.ambiguous},
                ),
                ("are left out, the teacher's tokenizer can't write them", {w for d in here for w in d.unsayable}),
            ):
                if found:
                    first = ", ".join(sorted(found)[:FEW])
                    told.append(f"{len(found):,} label words of {name} {what}; first: {first}")
        return told

    def _prepare(self, group: Group, rows: Sequence[Example], ledger: Ledger) -> Moves:
        words = self.sets[group.set]
        if group.language not in words.languages:
            have = listed(sorted(words.languages))
            raise RecipeError(
                f"data.train.{group.dataset}.labels: {rows[0].origin} is in {group.language}, and the label words of "
                f"{group.set} are in {have}. Add {group.language} to a file of your own, named in "
                "verbalizer.vocabulary.label_words, or declare the labels of other rows only."
            )
        targets = self._targets(words, group.language, rows, ledger)
        facts = Declared(*group, rows=len(rows), targets={label: word.text for label, word in targets.items()})
        self.declared.append(facts)
        return self._find(words, group.language, targets, facts)

    def _targets(self, words: LabelSet, language: str, rows: Sequence[Example], ledger: Ledger) -> dict[str, Word]:
        """The word of each label, as most responses spell it, else the table's main one."""
        used: dict[str, Counter[str]] = {label: Counter() for label in words.labels}
        for row in rows:
            label = words.label_of(row.response, language)
            if label is None:
                ledger.count(f"response that is no word of the set {words.name}", language, str(row.origin))
            else:
                used[label][row.response.strip()] += 1
        if not any(used.values()):
            raise RecipeError(
                f"data.train.{rows[0].origin.dataset}.labels: none of the {len(rows):,} responses in {language} is a "
                f"word of the set {words.name} in that language; the first one, of {rows[0].origin}, is "
                f"{rows[0].response[:60]!r}. Name the right set, write the responses in the language of their rows, or "
                "add their words to a file of your own, named in verbalizer.vocabulary.label_words."
            )
        main = {label: spoken[language][0] for label, spoken in words.labels.items()}
        return {
            label: main[label]._replace(text=used[label].most_common(1)[0][0]) if used[label] else main[label]
            for label in words.labels
        }

    def _find(self, words: LabelSet, language: str, targets: Mapping[str, Word], facts: Declared) -> Moves:
        pieces = {label: self._written(word) for label, word in targets.items()}
        here, elsewhere = list(_all(words, {language})), list(_all(words, words.languages - {language}))
        at_home = {piece for _, _, word in here for piece in self._beginnings(word.text)}
        at_home |= {target[0] for target in pieces.values()}
        meant: dict[int, set[str]] = {}
        for label, _, word in elsewhere:
            for piece in self._beginnings(word.text):
                meant.setdefault(piece, set()).add(label)
        telling = {piece for _, _, word in elsewhere for piece, tells in self._beginnings(word.text).items() if tells}
        moving = {piece for piece in telling if len(meant[piece]) == 1 and piece not in at_home}
        self._note(here, elsewhere, moving, facts)
        return Moves(
            sources=tuple(tuple(sorted(p for p in moving if label in meant[p])) for label in pieces),
            targets=tuple(pieces.values()),
            own=tuple(sorted({p for _, _, w in here for p, tells in self._beginnings(w.text).items() if tells})),
        )

    def _note(self, here: Sequence[Spelt], elsewhere: Sequence[Spelt], moving: set[int], facts: Declared) -> None:
        """Words of other languages that stay where they are, and why."""
        right = {(label, piece) for label, _, word in here for piece in self._beginnings(word.text)}
        for label, language, word in elsewhere:
            firsts = self._beginnings(word.text)
            if not written(self.teacher, word.text):
                facts.unsayable.append(f"{language} {word.text}")
            elif not any(piece in moving or (label, piece) in right for piece in firsts):
                facts.ambiguous.append(f"{language} {word.text}")

    def _written(self, word: Word) -> tuple[int, ...]:
        """The pieces of a target, which the student must be able to write as well."""
        for side in (self.student, self.teacher):
            if not written(side, word.text):
                name = getattr(side.tokenizer, "name_or_path", "") or "trained on the data"
                raise ModelError(
                    f"{word.where}: the label word {word.text!r} can't be said by the {side.who}'s tokenizer ({name}): "
                    f"it writes {_attempt(side, word.text)!r}. Put another word first in a file of your own, named in "
                    "verbalizer.vocabulary.label_words, or declare no labels for these rows."
                )
        return tuple(written(self.teacher, word.text))

    def _beginnings(self, text: str) -> dict[int, bool]:
        """First pieces of a word, as it is and with a capital, each also after a space; whether they say half of it."""
        if text not in self._firsts:
            capital = text[:1].upper() + text[1:]
            forms = [space + form for form in (text, capital) for space in ("", " ")]
            firsts = {ids[0] for form in forms if (ids := written(self.teacher, form))}
            said = {piece: _letters(self.teacher.tokenizer.decode([piece])) for piece in firsts}
            self._firsts[text] = {p: 2 * len(s.strip(BROKEN)) >= len(_letters(text)) for p, s in said.items() if s}
        return self._firsts[text]


def check_declared(datasets: Iterable[tuple[str, str]], sets: Mapping[str, LabelSet]) -> None:
    """Every set that a dataset names exists. datasets: (name, set). RecipeError names the nearest one."""
    for dataset, name in datasets:
        if name not in sets:
            near = nearest(name, sets)
            hint = f"did you mean {near!r}? " if near else ""
            raise RecipeError(
                f"data.train.{dataset}.labels: no set of label words is called {name!r}; {hint}There are "
                f"{listed(sorted(sets))}; a file of your own goes into verbalizer.vocabulary.label_words."
            )


def written(side: Encoder, text: str) -> list[int]:
    """The pieces that a response with this text begins with; none where the tokenizer loses a part of it."""
    ids = side.response_ids(text)[:-1]
    said = side.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return ids if _letters(str(said)) == _letters(text) else []


def _letters(text: str) -> str:
    """NFC without white space: WordPiece decodes "a/b" as "a / b", and has lost nothing of it."""
    return "".join(unicodedata.normalize("NFC", text).split())


def _attempt(side: Encoder, text: str) -> str:
    return str(side.tokenizer.decode(side.response_ids(text)[:-1], skip_special_tokens=False))


def _group(example: Example) -> Group:
    return Group(example.origin.dataset, str(example.labels), example.language)


def _all(words: LabelSet, languages: Iterable[str]) -> Iterator[Spelt]:
    """Every word of these languages."""
    for label, spoken in words.labels.items():
        for language in sorted(languages):
            for word in spoken[language]:
                yield label, language, word
