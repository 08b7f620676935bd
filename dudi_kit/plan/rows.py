"""Rows as the step takes them: the prompts of student and teacher and the reference response, as token ids.

Tokens are made once, before the first step; the step only pads and joins them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from dudi_kit.data.asked import Ask, nobody
from dudi_kit.data.encode import Encoded, Encoder
from dudi_kit.data.example import Example
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.load import load_examples
from dudi_kit.data.mixing import Mixture
from dudi_kit.data.responses import with_responses
from dudi_kit.errors import DataError, VocabularyMismatch
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.data import Data
from dudi_kit.recipe.schema.verbalizer import Term
from dudi_kit.verbalizer.demonstration import Demonstrator
from dudi_kit.verbalizer.label_words.words import LabelWords, Moves
from dudi_kit.verbalizer.vocabulary.mapping import JointVocabulary
from dudi_kit.verbalizer.vocabulary.reading import Reading

ShownSource = Literal["parallel", "pool", "teacher", "none"]
"""Where the demonstration came from that the teacher read with a row; `none`: it read the bare prompt."""

LOST = "response of which"
"""Begins the ledger's events of texts that a tokenizer can't say."""


class TeacherPrompt(NamedTuple):
    """What the teacher reads before a response."""

    ids: list[int]
    shown: ShownSource


@dataclass(frozen=True, slots=True)
class Row:
    """One training row."""

    index: int
    """Its number among the training rows; rollouts are seeded by it."""

    language: str
    dataset: str
    prompt: list[int]
    """x in the student's chat template, as token ids."""

    response: list[int]
    """y with its end of turn, unless it was cut."""

    teacher_prompts: dict[Term, list[int]]
    """What the teacher reads before y (`off_policy`) and before ỹ (`on_policy`), in the teacher's own chat template."""

    labels: Moves | None = None
    """Which of the teacher's mass moves to words of the row's language; None where the row declares no label set."""

    shown: dict[str, ShownSource] = field(default_factory=dict)
    """Source of the demonstration in each of the teacher's prompts, by term."""

    reading: Reading | None = None
    """y as the teacher reads it, in its own tokens; None where it reads the student's."""


@dataclass
class RowMaker:
    """Turns examples into rows; counts what it leaves out."""

    data: Data
    student: Encoder
    ledger: Ledger
    teacher: "TeacherSide | None" = None

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """The rows of all examples that fit."""
        made = (self.row(i, example) for i, example in enumerate(examples))
        return [row for row in made if row is not None]

    def row(self, index: int, example: Example) -> Row | None:
        """The row of one example, or None where it was left out and counted."""
        encoded = self.student.encode(
            example, max_length=self.data.max_length, on_too_long=self.data.on_too_long, ledger=self.ledger
        )
        if encoded is None:
            return None
        reading = self.teacher.read(encoded) if self.teacher else None
        heard = reading.ids if reading else encoded.response_ids
        prompts = self.teacher.prompts(example, heard) if self.teacher else {}
        return Row(
            index,
            example.language,
            example.origin.dataset,
            encoded.prompt_ids,
            encoded.response_ids,
            teacher_prompts={term: prompt.ids for term, prompt in prompts.items()},
            labels=self.teacher.labels.moves(example) if self.teacher and self.teacher.labels else None,
            shown={term: prompt.shown for term, prompt in prompts.items()},
            reading=reading,
        )


Outcome = Literal["whole", "in part", "none"]
"""How much of its demonstration a row is taught with."""


@dataclass
class TeacherSide:
    """What is needed to make the teacher's prompts."""

    encoder: Encoder
    demonstrator: Demonstrator
    terms: Sequence[Term]
    """Signals whose teacher reads the demonstration."""

    room: int
    """Longest teacher prompt in tokens: its context less the longest sample ỹ."""

    context: int
    """Longest input in tokens: off-policy, the teacher reads the row's own response after the prompt."""

    vocabulary: JointVocabulary

    ledger: Ledger
    labels: LabelWords | None = None
    """Label words of the rows that declare their set; None where none does."""

    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    """(language, outcome) → rows"""

    cut: Counter[str] = field(default_factory=Counter)
    """language → rows whose demonstration lost a part, or all, for lack of room"""

    def prompts(self, example: Example, response: list[int]) -> dict[Term, TeacherPrompt]:
        """The teacher's prompt for each term. response: y in the teacher's tokens."""
        bare = TeacherPrompt(self.encoder.prompt_ids(example.prompt), "none")
        shown = self._demonstrated(example, bare, response) if self.terms else bare
        return {term: shown if term in self.terms else bare for term in ("off_policy", "on_policy")}

    def _demonstrated(self, example: Example, bare: TeacherPrompt, response: list[int]) -> TeacherPrompt:
        """The prompt with as many parts of the demonstration as fit, the first ones; else the bare prompt."""
        shown = self.demonstrator.exchanges(example)
        room = min(self.room, self.context - len(response)) if "off_policy" in self.terms else self.room
        for parts in range(len(shown), 0, -1):
            ids = self.encoder.prompt_ids(self.demonstrator.framed(example, shown[:parts]))
            if len(ids) <= room:
                self._count(example, parts, len(shown))
                return TeacherPrompt(ids, self.demonstrator.settings.source)
        self._count(example, 0, len(shown))
        return bare

    def _count(self, example: Example, parts: int, found: int) -> None:
        whole = len(self.demonstrator.wanted(example))
        outcome: Outcome = "none" if parts == 0 else "whole" if parts == whole else "in part"
        self.outcomes[example.language, outcome] += 1
        if parts < found:
            self.cut[example.language] += 1
            left = f"demonstration cut to {parts} of {found} parts" if parts else "taught without a demonstration"
            self.ledger.count(f"{left}: longer than the teacher's room", example.language, str(example.origin))

    def read(self, encoded: Encoded) -> Reading | None:
        """y as the teacher reads it; None where it reads the student's own ids. Counts text that a tokenizer loses."""
        response, example = encoded.response_ids, encoded.example
        if alien := self.vocabulary.unread(response):
            raise VocabularyMismatch(
                f"{example.origin}: the response has piece {alien[0]:,}, which only the student has "
                f"(verbalizer.vocabulary.mapping: {self.vocabulary.mapping}). Leave the row out, set the mapping to "
                "align, or choose a teacher with the student's tokenizer."
            )
        reading = self.vocabulary.read(response)
        for loss in self.vocabulary.losses(example.response, response, cut=encoded.truncated):
            self.ledger.count(f"{LOST} {loss}", example.language, str(example.origin))
        return reading


@dataclass(frozen=True)
class TrainingRows:
    """What is trained on, and in which order."""

    rows: list[Row]
    mixture: Mixture
    """Over positions in `rows`."""


def mixed(recipe: Recipe, rows: list[Row], ledger: Ledger) -> TrainingRows:
    """The rows in the order that the recipe's weights, temperature and seed give."""
    if not rows:
        raise DataError(f"data.train: no row is left to train on. {'. '.join(ledger.lines())}.")
    weights = {name: dataset.weight for name, dataset in recipe.data.train.items()}
    groups = [(row.language, row.dataset) for row in rows]
    return TrainingRows(rows, Mixture(groups, weights, recipe.data.language_temperature, recipe.training.seed))


def training_examples(recipe: Recipe, ledger: Ledger, ask: Ask = nobody) -> list[Example]:
    """Every training row: its response the teacher's where the recipe says so, its prompt shown with `demonstrate`.

    ask: finds what the teacher was asked for.
    """
    examples = [example for name in recipe.data.train for example in _read(recipe, name, ledger, ask)]
    shown = {name for name, dataset in recipe.data.train.items() if dataset.demonstrate}
    if not shown:
        return examples
    demonstrator = Demonstrator(recipe.verbalizer.demonstration, examples, ledger, ask)
    return [replace(e, prompt=demonstrator.turns(e)) if e.origin.dataset in shown else e for e in examples]


def _read(recipe: Recipe, name: str, ledger: Ledger, ask: Ask) -> Iterable[Example]:
    dataset = recipe.data.train[name]
    if dataset.weight == 0:
        return []
    examples = load_examples(name, dataset, on_bad_row=recipe.data.on_bad_row, ledger=ledger)
    return with_responses(examples, dataset.responses, ask, ledger)


def texts(examples: Iterable[Example]) -> Iterable[str]:
    """All text of the examples, English versions included: what a new tokenizer is trained on."""
    for example in examples:
        yield from (turn.content for turn in example.prompt)
        yield example.response
        if example.english:
            yield from (example.english.prompt, example.english.response)
