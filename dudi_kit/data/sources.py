"""Rows of a dataset as plain dicts with their number, from files, the hub and the corpus that ships.

A source never decides what happens to a row that can't be read: it hands the fault on with the row's number, and
`load` stops or counts, as the recipe says. Only what makes the whole source unusable is raised here.
"""

import csv
import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dudi_kit.errors import DataError, DudiError, EnvironmentLack, HubUnreachable
from dudi_kit.recipe.paths import is_plain_file
from dudi_kit.recipe.schema.data import BuiltinRows, Dataset, FileRows, HubRows

PLACEHOLDER = "{language}"

COMMIT = re.compile(r"[0-9a-f]{40}")
FETCHED = re.compile(r"hf://datasets/[^@]+@([0-9a-f]{40})/")
"""How the library notes where a file of a dataset came from."""

LONGEST_LINE = 32 << 20
"""Bytes: a file without line ends must not fill the memory."""


class BadRow(Exception):
    """One row can't be used; the text says in which column, what was expected and what was found."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """A short name of the fault, to count by."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in its source."""

    number: int
    """Line at which it begins in a text file, else its number; counted from 1."""

    values: dict[str, Any] = field(default_factory=dict)
    fault: BadRow | None = None
    """Why it could not be read at all; `values` is empty then."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file, hub subset or built-in split."""

    name: str
    """Path, `hub:owner/name` or `builtin:train`, for messages."""

    language: str | None
    """The code that `{language}` stands for here, if it does."""

    rows: Callable[[], Iterator[Row]]


def open_sources(dataset: Dataset) -> list[Source]:
    """The sources of a dataset, one for each language where `{language}` stands in its path or subset.

    Nothing is read yet; reading raises DataError for a source that can't be used as a whole, and EnvironmentLack
    where the hub can't be reached.
    """
    match dataset:
        case FileRows():
            paths = _expand(dataset.path, dataset.languages, "path")
            return [file_source(path, language) for language, path in paths]
        case HubRows():
            subsets = _expand(dataset.subset or "", dataset.languages, "subset")
            return [_hub_source(dataset, subset or None, language) for language, subset in subsets]
        case BuiltinRows():
            return [Source(f"builtin:{dataset.builtin}", None, lambda: _builtin_rows(dataset.builtin))]


def file_source(path: str, language: str | None = None) -> Source:
    """A .jsonl, .csv, .tsv or .parquet file as a source."""
    return Source(path, language, lambda: _file_rows(Path(path)))


def _expand(pattern: str, languages: Sequence[str] | None, field_name: str) -> list[tuple[str | None, str]]:
    if PLACEHOLDER not in pattern:
        return [(None, pattern)]
    if not languages:
        raise DataError(
            f"{field_name} {pattern!r} has {PLACEHOLDER}, but no languages are given. Add languages: [id, th]."
        )
    return [(language, pattern.replace(PLACEHOLDER, language)) for language in languages]


# Files


def _file_rows(path: Path) -> Iterator[Row]:
    reader = READERS.get(path.suffix.lower())
    if path.is_dir():
        raise DataError(f"{path} is a folder. Name one file; {PLACEHOLDER} in a path stands for each of `languages`.")
    if reader is None:
        hint = "; one JSON object a line makes it .jsonl" if path.suffix.lower() == ".json" else ""
        raise DataError(f"{path}: can't read files of type {path.suffix!r}, only {', '.join(READERS)}{hint}.")
    if path.exists() and not is_plain_file(path):
        raise DataError(f"{path}: is no file with rows, but a device, a pipe, or what the kernel tells of itself.")
    if not path.is_file():
        raise DataError(f"{path}: no such file. Paths are relative to the recipe that names them.")
    try:
        yield from reader(path)
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}.") from error


def _lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file with their ends; only LF ends a line, since JSON strings may hold U+2028.

    Bytes that are not UTF-8 become lone surrogates, which `formats.tidy` refuses in the column where they stand.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), start=1):
            if len(raw) > LONGEST_LINE:
                raise DataError(f"{path}:{number}: the line is longer than {LONGEST_LINE >> 20} MiB; no row is.")
            if number == 1:
                if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(f"{path}: is UTF-16; only UTF-8 is read. Convert it: iconv -f UTF-16 -t UTF-8.")
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            yield raw.decode("utf-8", errors="surrogateescape")


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if line.isspace():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            fault = BadRow("not JSON", f"expected one JSON object a line, found {error.msg} at column {error.colno}")
            yield Row(number, fault=fault)
        except (ValueError, RecursionError) as error:
            yield Row(number, fault=BadRow("not JSON", f"expected one JSON object a line, found {error}"))
        else:
            if isinstance(values, dict):
                yield Row(number, values)
            else:
                found = type(values).__name__
                yield Row(
                    number, fault=BadRow("not a JSON object", f"expected one JSON object a line, found a {found}")
                )


def _csv_rows(path: Path) -> Iterator[Row]:
    # strict: a stray quote is an error at its row instead of swallowing all that follows.
    return _table_rows(path, csv.reader(_lines(path), strict=True))


def _tsv_rows(path: Path) -> Iterator[Row]:
    # Quotes mean nothing in the tab-separated files of NLP corpora: a sentence may begin with one and never close it.
    return _table_rows(path, csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE))


def _table_rows(path: Path, reader: Any) -> Iterator[Row]:
    header = _header(path, reader)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(number, fault=BadRow("not CSV", f"expected {len(header)} cells, found {error}"))
            continue
        if len(cells) == len(header):
            yield Row(number, dict(zip(header, cells, strict=True)))
        elif cells:
            message = f"expected {len(header)} cells as in the header ({', '.join(header)}), found {len(cells)}"
            yield Row(number, fault=BadRow("wrong number of cells", message))


def _header(path: Path, reader: Any) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise DataError(f"{path}:1: the header can't be read: {error}.") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}:1: the header names column {twice[0]!r} more than once. Rename one of them.")
    return header


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for number, values in enumerate(batch.to_pylist(), start=number + 1):  # noqa: B020 -- goes on counting
                    yield Row(number, values)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not a Parquet file that can be read: {error}") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl_rows,
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".parquet": _parquet_rows,
}


# The hub and the corpus that ships


def _hub_source(dataset: HubRows, subset: str | None, language: str | None) -> Source:
    name = f"hub:{dataset.hub}" + (f"/{subset}" if subset else "")
    return Source(name, language, lambda: _hub_rows(dataset, subset))


def _hub_rows(dataset: HubRows, subset: str | None) -> Iterator[Row]:
    return read_hub_table(dataset, subset).rows()


class HubTableRead(NamedTuple):
    """A split of a dataset of the hub, downloaded."""

    commit: str | None
    """What was read: of a branch or tag, the commit that it stands for, if the library says it."""

    rows: Callable[[], Iterator[Row]]


def read_hub_table(dataset: HubRows, subset: str | None) -> HubTableRead:
    """Download a split, or read it from the local cache. subset: with its language.

    DataError: there is no such dataset, subset, split or revision. HubUnreachable: nor does the cache hold it; what the
    library reads offline is the newest that it has of a dataset, so that a commit is compared.
    """
    import datasets

    require_hub_name(dataset.hub)
    try:
        table = datasets.load_dataset(dataset.hub, subset, split=dataset.split, revision=dataset.revision)
    except Exception as error:
        what = f"dataset {dataset.hub!r} (subset {subset}, split {dataset.split}, revision {dataset.revision})"
        raise hub_error(what, error, DataError) from error
    named = dataset.revision if COMMIT.fullmatch(dataset.revision) else None
    read = _commit_of(table)
    if named and read and read != named:
        raise HubUnreachable(
            f"dataset {dataset.hub!r}: the hub can't be reached for commit {named[:12]}, and the local cache holds "
            f"{read[:12]} of it. Connect to the network, or name that commit."
        )
    return HubTableRead(read or named, lambda: (Row(number, values) for number, values in enumerate(table, start=1)))


def _commit_of(table: Any) -> str | None:
    """The commit in the addresses of the files that a table was made of."""
    addresses = getattr(getattr(table, "info", None), "download_checksums", None) or ()
    return next((found[1] for address in addresses if (found := FETCHED.match(address))), None)


@contextmanager
def cache_only() -> Iterator[None]:
    """Read what the local cache holds and ask no hub: each attempt at one that can't be reached takes half a minute."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def require_hub_name(name: str) -> str:
    """The hub name itself; DataError where the libraries would take a folder of the current one instead."""
    if os.path.lexists(name):
        raise DataError(
            f"{name!r} is a name on the hub, and {os.path.abspath(name)} has the same: it would be read in its place. "
            f"Call dudi-kit from another folder, or write ./{name} (relative to the recipe) if you mean the folder."
        )
    return name


def hub_error(what: str, error: BaseException, wrong: type[DudiError]) -> DudiError:
    """What to raise for a failed download: EnvironmentLack where the machine is the reason, else `wrong`."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if any(_is_network(cause) for cause in causes):
        return HubUnreachable(
            f"{what}: the hub can't be reached, and the local cache does not hold it. Connect to the network, or fetch "
            "it on another machine, copy it here, and give its path."
        )
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return EnvironmentLack(f"{what}: no space left for the download. Free some, or set HF_HOME to a larger disk.")
    return wrong(f"{what}: {str(error).strip() or type(error).__name__}")


def _is_network(error: BaseException) -> bool:
    # huggingface_hub speaks httpx or, lately, httpx2; their errors share no base with the standard library's.
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or bool(
        names & {"httpx.TransportError", "httpx2.TransportError", "huggingface_hub.LocalEntryNotFoundError"}
    )


def _builtin_rows(split: str) -> Iterator[Row]:
    from dudi_kit.data.builtin import rows

    for number, values in enumerate(rows(split), start=1):
        yield Row(number, dict(values))
