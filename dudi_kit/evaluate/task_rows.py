"""A task file and its rows → rows that are ready to be asked, for generation and for log-probabilities alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dudi_kit.data.formats import tidy
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.sources import BadRow, Row
from dudi_kit.errors import DataError
from dudi_kit.evaluate.prompts import Frame, Prompt, ask, fill, own_frame
from dudi_kit.evaluate.seahelm.parsing import check_labels, check_tag
from dudi_kit.evaluate.seahelm_prompts import prompt_file, seahelm_frame
from dudi_kit.evaluate.subset import interleaved, stratified
from dudi_kit.evaluate.task_sources import Table, table_of
from dudi_kit.plan.fingerprint import file_sha256
from dudi_kit.recipe.diagnostics import listed
from dudi_kit.recipe.schema.task import BuiltinRequests, LocalClasses, Mode, TaskFile, TaskSource
from dudi_kit.recipe.task_files import folded
from dudi_kit.recipe.task_places import Homes

LABEL = "label"
"""Column name of the right answer."""

NAMED = (LocalClasses, BuiltinRequests)
"""Sources whose rows we name ourselves, in the column `id`."""

MOST_BAD = 100
"""One bad row in so many is left out and counted: benchmarks have such. More are a mistake in the task file."""


@dataclass(frozen=True)
class Wishes:
    """What a recipe asks of a task."""

    mode: Mode = "instruct"
    shots: int | None = None
    """None: what the task says for the mode."""

    limit: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One question, as the model reads it, with what counts as right."""

    task: str
    language: str
    id: str
    """Unique in its task and language."""

    question: str
    """Its own part of the prompt, without instruction, form and worked examples."""

    prompt: Prompt
    opening: str
    """Text at the prompt's end that belongs to the answer: the answer tag, where the model goes on behind it. Put it in
    front of what the model writes before the answer is parsed."""

    references: tuple[str, ...]
    """Right answers without the tag; the first one is the most usual. Empty where only checks decide."""

    choices: tuple[str, ...]
    """The words of all labels of the full set; empty for a task without labels."""

    answers: tuple[str, ...]
    """What the model would write for each choice, or for the first reference: the texts to score by likelihood."""

    split: str
    checks: tuple[Mapping[str, Any], ...] = ()
    """Constraints on the answer, for `instructions.followed`."""

    @property
    def gold(self) -> int:
        """Index of the right answer in `answers`."""
        return self.choices.index(self.references[0]) if self.choices else 0


@dataclass(frozen=True)
class LanguageRows:
    """A task in one language."""

    rows: list[TaskRow]
    tag: str
    """What an answer is looked for behind; empty where there is none."""

    labels: tuple[str, ...]
    """Label words of the full set, whatever the limit is: 1/len is the random baseline."""

    answer_language: str

    whole: int
    """Rows of the full set."""

    source: str
    data: Mapping[str, str]
    """What rows, worked examples and prompts were read from: file → `sha256 …`, hub dataset → `commit …`."""

    prompts: str
    """Whose prompts these are: `dudi-kit` or `SEA-HELM`."""

    until: str | None
    """What ends an answer besides an end of turn."""

    shown: tuple[str, ...]
    """Ids of the worked examples."""


def load_rows(
    task: TaskFile, languages: Sequence[str] | None, wishes: Wishes, homes: Homes, ledger: Ledger
) -> dict[str, LanguageRows]:
    """Language → rows. languages: None for all of the task.

    A row that can't be used is left out and counted in the ledger. DataError: more than one of these in a hundred (with
    the first one's place), a language without data, an empty split, an id that is there twice, or fewer worked examples
    than asked for.
    """
    return {code: _Language(task, code, wishes, homes, ledger).load() for code in languages or task.languages}


@dataclass(frozen=True, slots=True)
class _Item:
    """A row before it is framed."""

    id: str
    question: str
    references: tuple[str, ...]
    checks: tuple[Mapping[str, Any], ...]

    @property
    def stratum(self) -> str:
        return self.references[0] if self.references else ""


class _Language:
    """One language of a task being read."""

    def __init__(self, task: TaskFile, language: str, wishes: Wishes, homes: Homes, ledger: Ledger) -> None:
        self.task, self.language, self.wishes, self.ledger = task, language, wishes, ledger
        self.own = task.languages[language]
        try:
            self.source, self.table = table_of(task, language, homes)
        except DataError as error:
            raise DataError(f"task {task.name}: {error}") from error
        theirs = seahelm_frame(task, language, wishes.mode, homes.seahelm) if homes.seahelm else None
        self.prompts = "SEA-HELM" if theirs else "dudi-kit"
        told = prompt_file(task, language, homes.seahelm) if theirs and homes.seahelm else None
        self.data = {**self.table.data} | ({str(told): f"sha256 {file_sha256(told)}"} if told else {})
        self.frame: Frame = theirs or own_frame(task, language, wishes.mode)
        check_tag(self.frame.answer_tag)
        if task.has_labels:
            check_labels(list(self.frame.labels.values()))

    def load(self) -> LanguageRows:
        items = self._items(self.table.rows, self.source, self.table)
        if not items:
            raise DataError(f"task {self.task.name}: {self.table.name} has no rows in {self.language}.")
        by_label: Callable[[_Item], str | None] = (lambda i: i.stratum) if self.task.has_labels else (lambda i: None)
        pool, items = self._pool(items, by_label)
        shown = self._shown(pool, items, by_label)
        limit = self.wishes.limit or len(items)
        drawn = stratified(items, limit, key=lambda i: i.id, stratum=by_label, seed=self.wishes.seed)
        return LanguageRows(
            rows=[self._row(item, shown) for item in drawn],
            tag=self.frame.answer_tag,
            labels=tuple(self.frame.labels.values()) if self.task.has_labels else (),
            answer_language=self.task.answer_language or self.language,
            whole=len(items),
            source=self.table.name,
            data=self.data,
            prompts=self.prompts,
            until=self.frame.until,
            shown=tuple(item.id for item in shown),
        )

    # Worked examples

    def _pool(self, items: list[_Item], by_label: Callable[[_Item], str | None]) -> tuple[list[_Item], list[_Item]]:
        """(rows that examples may be drawn from, rows that are scored)."""
        examples = self.source.examples
        if examples is None:
            return [], items
        if self.table.examples is not None:
            return self._items(self.table.examples, self.source, self.table), items
        held_out = examples.hold_out or 0
        pool = interleaved(items, key=lambda i: i.id, stratum=by_label, seed=0)[:held_out]
        ids = {item.id for item in pool}
        rest = [item for item in items if item.id not in ids]
        if not rest:
            raise DataError(f"task {self.task.name}: all {len(items):,} rows in {self.language} are held out.")
        return pool, rest

    def _shown(self, pool: list[_Item], items: list[_Item], by_label: Callable[[_Item], str | None]) -> list[_Item]:
        """The examples that are shown: the same for every row, and none of them asks what a scored row asks."""
        shots = self.wishes.shots if self.wishes.shots is not None else getattr(self.task.shots, self.wishes.mode)
        if shots == 0:
            return []
        asked = {item.question for item in items}
        fresh = [item for item in pool if item.question not in asked]
        if len(fresh) < len(pool):
            event = f"example of task {self.task.name} left out: it is a test row"
            self.ledger.count(event, self.language, times=len(pool) - len(fresh))
        if len(fresh) < shots:
            raise DataError(
                f"task {self.task.name}: {shots} worked examples wanted in {self.language}, and {len(fresh)} are "
                f"there. Set shots: {len(fresh)}."
            )
        return interleaved(fresh, key=lambda i: i.id, stratum=by_label, seed=self.wishes.seed)[:shots]

    # Rows

    def _row(self, item: _Item, shown: Sequence[_Item]) -> TaskRow:
        frame = self.frame
        opening = frame.answer_tag if frame.tag_is_given else ""
        choices = tuple(frame.labels.values()) if self.task.has_labels else ()
        examples = [(example.question, self._answer(example.references[0])) for example in shown]
        written = choices or item.references[:1]
        return TaskRow(
            task=self.task.name,
            language=self.language,
            id=item.id,
            question=item.question,
            prompt=ask(frame, item.question, examples, self.wishes.mode),
            opening=opening,
            references=item.references,
            choices=choices,
            answers=tuple(self._answer(text).removeprefix(opening) for text in written),
            split=self.table.split,
            checks=item.checks,
        )

    def _answer(self, text: str) -> str:
        return fill(self.frame.answer, {"answer_tag": self.frame.answer_tag, LABEL: text}).strip()

    def _items(self, rows: Callable[[], Iterator[Row]], source: TaskSource, table: Table) -> list[_Item]:
        items: list[_Item] = []
        first: dict[str, int] = {}
        bad: list[tuple[str, BadRow]] = []
        for row in rows():
            case = f"{table.name}:{row.number}"
            try:
                item = self._item(row, source)
            except BadRow as error:
                bad.append((case, error))
                continue
            if item.id in first:
                raise DataError(
                    f"{case} (task {self.task.name}, {self.language}): the id {item.id!r} stands in row "
                    f"{first[item.id]} already. Name another column as 'id'."
                )
            first[item.id] = row.number
            items.append(item)
        if len(bad) * MOST_BAD > len(items) + len(bad):
            case, fault = bad[0]
            raise DataError(
                f"{case} (task {self.task.name}, {self.language}): {fault}. {len(bad):,} of {len(items) + len(bad):,} "
                "rows can't be used."
            )
        for case, fault in bad:
            self.ledger.count(f"row of task {self.task.name} left out: {fault.kind}", self.language, case)
        return items

    def _item(self, row: Row, source: TaskSource) -> _Item:
        if row.fault is not None:
            raise row.fault
        values = {field: self._field(row.values, field, source) for field in self.task.fields}
        name = source.id or ("id" if isinstance(source, NAMED) else None)
        identity = str(reach(row.values, name) if name else row.number)
        checks = tuple(row.values.get("checks", ())) if not self.task.has_references else ()
        references = self._references(row.values, source) if LABEL in source.columns else ()
        return _Item(identity, fill(self.frame.question, values), references, checks)

    def _field(self, values: Mapping[str, Any], field: str, source: TaskSource) -> str:
        column = self._column(source.columns.get(field, field))
        text = tidy(_text(reach(values, column), column), f"column {column!r}")
        wording = self.own.wording.get(field)
        if wording is None:
            return text
        if text not in wording:
            raise BadRow("unknown value", f"column {column!r}: expected {listed(wording)}, found {text!r}")
        return wording[text]

    def _references(self, values: Mapping[str, Any], source: TaskSource) -> tuple[str, ...]:
        column = self._column(source.columns[LABEL])
        found = reach(values, column)
        texts = [tidy(_text(each, column), f"column {column!r}") for each in _as_list(found)]
        if not texts:
            raise BadRow("no answer", f"column {column!r}: expected a right answer, found none")
        if not self.task.has_labels:
            return tuple(dict.fromkeys(texts))
        return (self._word(texts[0], source, column),)

    def _word(self, text: str, source: TaskSource, column: str) -> str:
        """The label word of what stands in the data: its value, the label's name, or the word itself."""
        labels = self.frame.labels
        label = source.values.get(text, text)
        if label in labels:
            return labels[label]
        same = [word for name, word in labels.items() if folded(label) in (folded(word), folded(name))]
        if len(same) != 1:
            raise BadRow(
                "unknown label", f"column {column!r}: expected {listed(source.values or labels)}, found {text!r}"
            )
        return same[0]

    def _column(self, column: str) -> str:
        return column.replace("{language}", self.language).replace("{code}", self.own.code or self.language)


def reach(values: Any, path: str) -> Any:
    """The value at `prompts.0.text` of a row; BadRow says what is there instead."""
    if isinstance(values, Mapping) and path in values:  # a column whose name has a dot
        return values[path]
    found = values
    for part in path.split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            there = ", ".join(map(repr, found)) if isinstance(found, Mapping) else type(found).__name__
            raise BadRow("missing column", f"no column {path!r}: {part!r} is not in {there}")
    return found


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any, column: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRow("not a text", f"column {column!r}: expected a text, found {type(value).__name__}")
    return str(value)
