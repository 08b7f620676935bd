"""A shard: a file of answers, each found by its key. It appears whole or not at all, and is never changed.

    magic, version, rows                      16 bytes
    table of rows                             for each: key (16 bytes), end of its answer, checksum of its answer
    checksum of all of that                   4 bytes
    answers                                   one after the other

Numbers are little-endian. An answer is some bytes, of which nothing is known here.
"""

import mmap
import os
import platform
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dudi_kit.errors import EnvironmentLack, RunDirectoryError

MAGIC = b"dudi-kit"
VERSION = 1
KEY_BYTES = 16
HERE = platform.node().replace(".", "-") or "here"
"""This machine, in the names of unfinished files."""

SUFFIX = ".shard"

_TABLE = np.dtype([("key", f"V{KEY_BYTES}"), ("end", "<u8"), ("checksum", "<u4")])
_HEAD = np.dtype([("magic", f"S{len(MAGIC)}"), ("version", "<u4"), ("rows", "<u4")])
_CHECKSUM = np.dtype("<u4")


class Entry(NamedTuple):
    """An answer and the key that it is found by."""

    key: bytes
    answer: bytes


def write_shard(path: Path, entries: Sequence[Entry]) -> None:
    """Write a shard beside its place, flush it to disk and rename it. EnvironmentLack where the disk can't hold it."""
    table = np.zeros(len(entries), dtype=_TABLE)
    table["key"] = [np.void(entry.key) for entry in entries]
    table["end"] = np.cumsum([len(entry.answer) for entry in entries])
    table["checksum"] = [zlib.crc32(entry.answer) for entry in entries]
    head = np.array([(MAGIC, VERSION, len(entries))], dtype=_HEAD).tobytes() + table.tobytes()
    partial = path.with_name(f".{path.name}.{HERE}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(head)
            file.write(np.array([zlib.crc32(head)], dtype=_CHECKSUM).tobytes())
            file.writelines(entry.answer for entry in entries)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise EnvironmentLack(f"can't write {path}: {error.strerror or error}. Free some space.") from error


class Shard:
    """An open shard, mapped into memory: what is not read costs nothing."""

    def __init__(self, path: Path) -> None:
        """RunDirectoryError: the file is damaged. EnvironmentLack: it can't be read."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file can't be mapped
            raise self._damaged("it is empty") from error
        except PermissionError as error:
            raise EnvironmentLack(
                f"can't read {path}: {error.strerror}. Give yourself the right to, or name another --output."
            ) from error
        except OSError as error:
            raise EnvironmentLack(f"can't read {path}: {error.strerror or error}") from error
        table_end = self._check_head()
        self._table = np.frombuffer(self._map[_HEAD.itemsize : table_end], dtype=_TABLE)
        self._first = table_end + _CHECKSUM.itemsize
        length = self._first + int(self._table["end"][-1])
        if len(self._map) != length:
            raise self._damaged(f"it has {len(self._map):,} bytes and should have {length:,}")

    def _check_head(self) -> int:
        """Where the table ends."""
        head = np.frombuffer(self._map[: _HEAD.itemsize].ljust(_HEAD.itemsize, b"\0"), dtype=_HEAD)[0]
        if head["magic"] != MAGIC or head["version"] != VERSION:
            raise self._damaged(f"it does not begin as a shard of version {VERSION} does")
        end = _HEAD.itemsize + int(head["rows"]) * _TABLE.itemsize
        found = self._map[end : end + _CHECKSUM.itemsize]
        if found != np.array([zlib.crc32(self._map[:end])], dtype=_CHECKSUM).tobytes():
            raise self._damaged("its table of rows was changed or cut")
        return end

    @property
    def keys(self) -> NDArray[np.void]:
        """Of its answers, in their order."""
        keys: NDArray[np.void] = self._table["key"]
        return keys

    def answer(self, row: int) -> bytes:
        """RunDirectoryError: it is not what was written."""
        found = self._map[self._place(row)]
        if zlib.crc32(found) != self._table["checksum"][row]:
            raise self._damaged(f"answer {row + 1:,} of {len(self._table):,} was changed")
        return found

    def expect(self, row: int) -> None:
        """Have the system read the answer from the disk while we do something else."""
        place = self._place(row)
        page = place.start - place.start % mmap.PAGESIZE
        if place.stop > place.start:
            with suppress(OSError):  # only a hint: a disk that can't be read is told by `answer`
                self._map.madvise(mmap.MADV_WILLNEED, page, place.stop - page)

    def _place(self, row: int) -> slice:
        start = int(self._table["end"][row - 1]) if row else 0
        return slice(self._first + start, self._first + int(self._table["end"][row]))

    def _damaged(self, how: str) -> RunDirectoryError:
        return RunDirectoryError(
            f"{self.path} is damaged: {how}. Remove it: what it held is asked again. If others follow, check the disk."
        )
