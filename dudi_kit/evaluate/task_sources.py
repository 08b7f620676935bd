"""Rows of a task where its file says that they are: local copies first, then the hub."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dudi_kit.data.sources import BadRow, HubTableRead, Row, file_source, read_hub_table
from dudi_kit.errors import DataError
from dudi_kit.evaluate.requests import requests
from dudi_kit.plan.fingerprint import file_sha256
from dudi_kit.recipe.schema.data import HubRows
from dudi_kit.recipe.schema.task import (
    BesideFile,
    BuiltinRequests,
    HubTable,
    LocalClasses,
    LocalFile,
    LocalLines,
    SeahelmFile,
    TaskFile,
    TaskSource,
)
from dudi_kit.recipe.task_places import EXAMPLES, Homes, files_of, filled, first_there

LARGEST = 256 << 20
"""Bytes of a file that is read whole."""


@dataclass(frozen=True)
class Table:
    """The rows of a source, and of its worked examples where they lie apart."""

    name: str
    """Path, or `hub:owner/name/subset@revision`, for messages and reports."""

    split: str
    rows: Callable[[], Iterator[Row]]
    examples: Callable[[], Iterator[Row]] | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    """What is read: file → `sha256 …`, hub dataset → `commit …`; empty for rows that ship with dudi-kit."""


def table_of(task: TaskFile, language: str, homes: Homes) -> tuple[TaskSource, Table]:
    """The first source whose files are there, or that is on the hub. DataError lists what was looked for, or says why a
    dataset of the hub can't be read; EnvironmentLack: the hub can't be reached."""
    source = first_there(task, language, homes)
    if isinstance(source, HubTable):
        return source, _hub(source, task, language)
    if isinstance(source, BuiltinRequests):
        return source, Table("requests that ship with dudi-kit", "test", lambda: _built_in(language))
    return source, _local(source, files_of(task, language, source, homes))


# --- local files ------------------------------------------------------------------------------------------------------


def _local(source: TaskSource, files: dict[str, Path]) -> Table:
    hashes = {str(path): f"sha256 {file_sha256(path)}" for path in files.values() if path.is_file()}
    beside = files.pop(EXAMPLES, None)
    name = " + ".join(map(str, files.values()))
    match source:
        case LocalLines():
            return Table(name, "test", lambda: _parallel(files), data=hashes)
        case LocalClasses():
            return Table(name, "test", lambda: _classes(files), data=hashes)
        case LocalFile() | BesideFile() | SeahelmFile():
            (path,) = files.values()
            header = source.header if isinstance(source, LocalFile) else None
            examples = _reader(beside, header) if beside else None
            return Table(name, path.stem, _reader(path, header), examples, hashes)
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


def _hub(source: HubTable, task: TaskFile, language: str) -> Table:
    subset = filled(source.subset, task, language) if source.subset else None

    def table(split: str) -> HubTableRead:
        return read_hub_table(
            HubRows(hub=source.hub, revision=source.revision, subset=subset, split=split, language="en"), subset
        )

    read = table(source.split)
    other = source.examples.split if source.examples else None
    examples = table(other).rows if other else None
    place = f"hub:{source.hub}{f'/{subset}' if subset else ''}"
    at = f"commit {read.commit}" if read.commit else f"{source.revision}, of which no commit is known"
    return Table(f"{place}@{read.commit or source.revision}", source.split, read.rows, examples, {place: at})


def _built_in(language: str) -> Iterator[Row]:
    for number, request in enumerate(requests(language), start=1):
        values: dict[str, Any] = {"id": request.id, "prompt": request.prompt, "checks": request.checks}
        yield Row(number, values)
