"""Rows of a task where its file says that they are: local copies first, then the hub."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dudi_kit.data.sources import BadRow, Row, file_source, open_sources
from dudi_kit.errors import DataError
from dudi_kit.evaluate.requests import requests
from dudi_kit.recipe.paths import is_plain_file
from dudi_kit.recipe.schema.data import HubRows
from dudi_kit.recipe.schema.task import (
    BesideFile,
    BuiltinRequests,
    HubTable,
    LocalClasses,
    LocalFile,
    LocalLines,
    SeahelmFile,
    TaskSource,
)

LARGEST = 256 << 20
"""Bytes of a file that is read whole."""


@dataclass(frozen=True)
class Homes:
    """Folders in which the files of tasks lie; None where the recipe names none."""

    data: Path | None = None
    seahelm: Path | None = None
    task: Path | None = None
    """Folder of the task file."""


@dataclass(frozen=True)
class Table:
    """The rows of a source, and of its worked examples where they lie apart."""

    name: str
    """Path, or `hub:owner/name/subset@revision`, for messages and reports."""

    split: str
    rows: Callable[[], Iterator[Row]]
    examples: Callable[[], Iterator[Row]] | None = None


def first_there(sources: Sequence[TaskSource], language: str, code: str, homes: Homes) -> tuple[TaskSource, Table]:
    """The first source whose files are there, or that is on the hub. DataError lists what was looked for."""
    looked: list[str] = []
    for source in sources:
        files = [_filled(file, language, code) for file in _files(source)]
        if isinstance(source, HubTable):
            return source, _hub(source, language, code)
        if isinstance(source, BuiltinRequests):
            return source, Table("requests that ship with dudi-kit", "test", lambda: _built_in(language))
        home = _home(source, homes)
        missing = [file for file in files if home is None or not is_plain_file(home / file)]
        if home is not None and not missing:
            return source, _local(source, home, language, code)
        looked += [
            str(home / file) if home else f"{file} (evaluation.{_setting(source)} is not set)" for file in missing
        ]
    raise DataError(
        f"no rows in {language}: looked for {', '.join(looked)}. Set evaluation.data_home to the folder that has them, "
        "or leave the language out."
    )


def _home(source: TaskSource, homes: Homes) -> Path | None:
    match source:
        case BesideFile():
            return homes.task
        case SeahelmFile():
            return homes.seahelm
        case _:
            return homes.data


def _setting(source: TaskSource) -> str:
    return "seahelm_home" if isinstance(source, SeahelmFile) else "data_home"


def _files(source: TaskSource) -> list[str]:
    match source:
        case LocalFile():
            return [source.data]
        case LocalLines():
            return list(source.lines.values())
        case LocalClasses():
            return list(source.classes.values())
        case BesideFile():
            return [source.path]
        case SeahelmFile():
            return [source.seahelm]
        case _:
            return []


def _filled(text: str, language: str, code: str) -> str:
    return text.replace("{language}", language).replace("{code}", code)


# --- local files ------------------------------------------------------------------------------------------------------


def _local(source: TaskSource, home: Path, language: str, code: str) -> Table:
    def at(file: str) -> Path:
        return home / _filled(file, language, code)

    match source:
        case LocalLines():
            files = {column: at(file) for column, file in source.lines.items()}
            return Table(" + ".join(map(str, files.values())), "test", lambda: _parallel(files))
        case LocalClasses():
            files = {label: at(file) for label, file in source.classes.items()}
            return Table(" + ".join(map(str, files.values())), "test", lambda: _classes(files))
        case LocalFile() | BesideFile() | SeahelmFile():
            (name,) = _files(source)
            path = at(name)
            header = source.header if isinstance(source, LocalFile) else None
            beside = source.examples.path if source.examples else None
            examples = _reader(at(beside), header) if beside else None
            return Table(str(path), path.stem, _reader(path, header), examples)
        case _:
            raise AssertionError(source)


def _reader(path: Path, header: Sequence[str] | None) -> Callable[[], Iterator[Row]]:
    if header is not None:
        return lambda: _named_columns(path, header)
    return (lambda: _squad(path)) if path.suffix == ".json" else file_source(str(path)).rows


def _named_columns(path: Path, header: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(_whole(path).splitlines()[1:], start=2):
        cells = line.split("\t")
        if len(cells) == len(header):
            yield Row(number, dict(zip(header, cells, strict=True)))
        else:
            message = f"expected {len(header)} cells ({', '.join(header)}), found {len(cells)}"
            yield Row(number, fault=BadRow("wrong number of cells", message))


def _whole(path: Path) -> str:
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path}: larger than {LARGEST >> 20} MiB; no benchmark of this kind is.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read: {error}.") from error


def _squad(path: Path) -> Iterator[Row]:
    """Articles → paragraphs → questions, as rows with the columns of the hub's copies."""
    try:
        articles = json.loads(_whole(path))["data"]
        found = [
            {
                "id": question["id"],
                "context": paragraph["context"],
                "question": question["question"],
                "answers": {"text": [answer["text"] for answer in question["answers"]]},
            }
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not in the form of SQuAD ({type(error).__name__}: {error}).") from error
    for number, values in enumerate(found, start=1):
        yield Row(number, values)


def _parallel(files: dict[str, Path]) -> Iterator[Row]:
    columns: dict[str, list[str]] = {column: _whole(path).splitlines() for column, path in files.items()}
    counts = {str(files[column]): len(lines) for column, lines in columns.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{file} has {count:,}" for file, count in counts.items())
        raise DataError(f"lines do not belong together: {told}.")
    for number, cells in enumerate(zip(*columns.values(), strict=True), start=1):
        yield Row(number, dict(zip(columns, cells, strict=True)))


def _classes(files: dict[str, Path]) -> Iterator[Row]:
    for label, path in files.items():
        for number, line in enumerate(_whole(path).splitlines(), start=1):
            if line.strip():
                yield Row(number, {"text": line, "label": label, "id": f"{path.name}:{number}"})


# --- the hub, and what ships ------------------------------------------------------------------------------------------


def _hub(source: HubTable, language: str, code: str) -> Table:
    subset = _filled(source.subset, language, code) if source.subset else None

    def rows(split: str) -> Callable[[], Iterator[Row]]:
        table = HubRows(hub=source.hub, revision=source.revision, subset=subset, split=split, language="en")
        return open_sources(table)[0].rows

    name = f"hub:{source.hub}{f'/{subset}' if subset else ''}@{source.revision}"
    other = source.examples.split if source.examples else None
    return Table(name, source.split, rows(source.split), rows(other) if other else None)


def _built_in(language: str) -> Iterator[Row]:
    for number, request in enumerate(requests(language), start=1):
        values: dict[str, Any] = {"id": request.id, "prompt": request.prompt, "checks": request.checks}
        yield Row(number, values)
