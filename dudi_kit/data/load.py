"""Datasets as the recipe names them → examples in memory, with a count of all that did not become one."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

from dudi_kit.data.example import Example, Exchange, Origin
from dudi_kit.data.formats import Reader, Values, column, compile_format, plain_prompt, text_column
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.sources import PLACEHOLDER, BadRow, Row, Source, file_source, open_sources
from dudi_kit.errors import DataError
from dudi_kit.recipe.languages import ALIASES, LANGUAGES
from dudi_kit.recipe.schema.data import BuiltinRows, Dataset, English, LabelsColumn, LanguageColumn

UNKNOWN = "?"
"""Stands for the language in the ledger where a row is too broken to have one."""


def load_examples(
    name: str, dataset: Dataset, *, on_bad_row: Literal["error", "skip"], ledger: Ledger
) -> list[Example]:
    """All examples of a dataset, in the order of its files and rows, held in memory.

    name: the dataset's name in the recipe. Rows that `where`, `languages` and `limit` leave out, and bad rows under
    `skip`, are counted in the ledger by language. DataError names file, row and column of a bad row under `error`; a
    source that can't be read; a dataset, or one of its `languages`, of which no row is left. EnvironmentLack: the hub
    can't be reached.
    """
    return _Loader(name, dataset, on_bad_row, ledger).load()


class _Loader:
    """One dataset being read: its settings, and what happened so far."""

    def __init__(self, name: str, dataset: Dataset, on_bad_row: str, ledger: Ledger) -> None:
        self.name, self.dataset, self.on_bad_row, self.ledger = name, dataset, on_bad_row, ledger
        self.kept: Counter[str] = Counter()
        """language → examples so far"""
        self.events: Counter[str] = Counter()
        """event → rows that it left out"""
        self.seen: dict[tuple[str, str], int] = {}
        """(item, language) → its row"""
        try:
            self.sources = open_sources(dataset)
            self.fixed, self.column = _language_setting(dataset, self.sources)
            self.read = compile_format(dataset.format)
            self.english = self._english()
        except DataError as error:
            raise DataError(f"dataset {name}: {error}") from error

    def load(self) -> list[Example]:
        examples = []
        for source in self.sources:
            for row in source.rows():
                example = self._example(source, row)
                if example is not None:
                    examples.append(example)
        self._check_nothing_is_empty()
        return examples

    def _example(self, source: Source, row: Row) -> Example | None:
        """The row's example, or None where it was counted as left out."""
        origin = Origin(self.name, source.name, row.number)
        language = source.language or self.fixed or UNKNOWN
        try:
            if row.fault is not None:
                raise row.fault
            if self.column is not None:
                language = text_column(row.values, self.column)
            event = self._reason_to_leave_out(row.values, language)
            if event is not None:
                self.ledger.count(event, language)
                self.events[event] += 1
                return None
            prompt, response = self.read(row.values, language)
            item = self._item(row, language)
            english = self._english_version(row.values, language, f"{source.name}:{row.number}")
            example = Example(prompt, response, language, english, origin, item, self._labels(row.values))
        except BadRow as bad:
            self.events[self._reject(bad, language, f"{source.name}:{row.number}")] += 1
            return None
        self.kept[language] += 1
        return example

    def _reason_to_leave_out(self, values: Values, language: str) -> str | None:
        if self.dataset.languages is not None and language not in self.dataset.languages:
            return "filtered by languages"
        if language not in LANGUAGES:
            hint = f"; it is written {ALIASES[language]!r} here" if language in ALIASES else ""
            known = f"expected one of {' '.join(LANGUAGES)}"
            raise BadRow("unknown language", f"column {self.column!r}: {known}, found {language!r}{hint}")
        if any(_as_text(column(values, name)) != text for name, text in self.dataset.where.items()):
            return "filtered by where"
        if self.dataset.limit is not None and self.kept[language] >= self.dataset.limit:
            return "over the limit"
        return None

    def _item(self, row: Row, language: str) -> str | None:
        """What the row shares with its versions in other languages; BadRow where one in its own language has it."""
        key = "id" if isinstance(self.dataset, BuiltinRows) else self.dataset.key
        if key is None:
            return None
        item = _as_text(column(row.values, key))
        first = self.seen.setdefault((item, language), row.number)
        if first != row.number:
            raise BadRow("duplicate key", f"column {key!r}: {item!r} stands in row {first} of {language} already")
        return item

    def _english_version(self, values: Values, language: str, case: str) -> Exchange | None:
        try:
            return self.english(values)
        except BadRow as bad:
            if self.dataset.english is None:
                raise
            if self.dataset.english.required:
                raise BadRow(bad.kind, f"{bad}. Rows may lack it with english.required: false") from bad
            self.ledger.count("row without an English version", language, case)
            return None

    def _labels(self, values: Values) -> str | None:
        setting = self.dataset.labels
        return _as_text(column(values, setting.column)) if isinstance(setting, LabelsColumn) else setting

    def _reject(self, bad: BadRow, language: str, case: str) -> str:
        """Stops at a bad row, or counts it and returns the event's name, as the recipe says."""
        if self.on_bad_row == "error":
            fix = "Mend the row or the dataset's format, or set data.on_bad_row: skip to leave such rows out, counted."
            raise DataError(f"{case} ({self.name}): {bad}. {fix}") from bad
        event = f"bad row left out: {bad.kind}"
        self.ledger.count(event, language, case)
        return event

    def _check_nothing_is_empty(self) -> None:
        wanted = self.dataset.languages or []
        missing = [language for language in wanted if not self.kept[language]]
        if self.kept and not missing:
            return
        rows = sum(self.kept.values()) + sum(self.events.values())
        counts = "".join(f", {event} {n:,}" for event, n in sorted(self.events.items()))
        where = ", ".join(source.name for source in self.sources)
        of = f" in {', '.join(missing)}" if missing and self.kept else ""
        raise DataError(
            f"dataset {self.name}: no rows left{of}. {rows:,} read from {where}{counts}. "
            "Check the file, `where` and the languages."
        )

    def _english(self) -> Callable[[Values], Exchange | None]:
        """Finds the English version of a row, in the row itself or in another file."""
        english = self.dataset.english or (English() if isinstance(self.dataset, BuiltinRows) else None)
        if english is None:
            return lambda values: None
        read = compile_format(english.format)
        if english.path is None:
            return lambda values: _exchange(read, values)
        if english.key is None:
            raise DataError("english.path needs english.key, the column that joins the two files.")
        return self._join(english.path, english.key, read)

    def _join(self, path: str, key: str, read: Reader) -> Callable[[Values], Exchange]:
        """Finds a row's English version by its key, in a file that is read once."""
        versions: dict[str, Exchange] = {}
        lines: dict[str, int] = {}
        for row in file_source(path).rows():
            try:
                if row.fault is not None:
                    raise row.fault
                value = _as_text(column(row.values, key))
                if value in versions:
                    raise BadRow("duplicate key", f"column {key!r}: {value!r} stands in row {lines[value]} already")
                versions[value], lines[value] = _exchange(read, row.values), row.number
            except BadRow as bad:
                self._reject(bad, "en", f"{path}:{row.number}")

        def find(values: Values) -> Exchange:
            value = _as_text(column(values, key))
            if value not in versions:
                raise BadRow("no English version", f"column {key!r}: {value!r} does not stand in {path}")
            return versions[value]

        return find


def _language_setting(dataset: Dataset, sources: list[Source]) -> tuple[str | None, str | None]:
    """(code of all rows, column of the code); both None where each source has a code of its own."""
    setting = dataset.language
    if any(source.language is not None for source in sources):
        if setting is not None:
            raise DataError(f"`language` and {PLACEHOLDER} both say the language. Drop one.")
        return None, None
    if isinstance(setting, LanguageColumn):
        return None, setting.column
    if setting is None and isinstance(dataset, BuiltinRows):
        return None, "language"
    if setting is None:
        ways = f"language: th, language: {{column: lang}}, or languages: [id, th] with {PLACEHOLDER} in the path"
        raise DataError(f"the language of the rows is not given. Set {ways}.")
    return setting, None


def _exchange(read: Reader, values: Mapping[str, Any]) -> Exchange:
    prompt, response = read(values, "en")
    return Exchange("en", plain_prompt(prompt), response)


def _as_text(value: Any) -> str:
    """A value as `where` and keys write it: texts as they are, the rest in JSON's words."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
