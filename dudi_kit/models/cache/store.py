"""The answers of one frozen model: a folder of shards, shared by all runs and ranks that ask the same.

The folder's name is a digest of its subject, all that an answer depends on besides the text: another revision, another
template, another tokenizer, and the folder is another one. What is written inside is held against it again, so that a
folder that was copied or renamed is refused.
Each process adds shards of its own, and sees those of others when it looks again.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dudi_kit.errors import EnvironmentLack, RunDirectoryError
from dudi_kit.models.cache.shards import HERE, KEY_BYTES, SUFFIX, Entry, Shard, write_shard

SUBJECT = "subject.json"

FULL = 64 * 2**20
"""Bytes of answers that wait for a shard of their own at most."""

Subject = Mapping[str, Any]
"""All that every answer of a store depends on, as JSON."""


def key_of(*parts: Sequence[int] | str) -> bytes:
    """Key of an answer by what was asked: token ids, or texts."""
    sha = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else np.asarray(part, dtype="<i8").tobytes()
        sha.update(f"{type(part) is str}{len(content)}:".encode() + content)
    return sha.digest()[:KEY_BYTES]


def store_folder(parent: Path, who: str, subject: Subject) -> Path:
    """Where the answers to a subject are kept. who: `teacher` or `reference`, for people."""
    digest = hashlib.sha256(_written(subject).encode()).hexdigest()
    return parent / f"{who}-{digest[:16]}"


class Store:
    """Finds answers by key, and keeps new ones."""

    def __init__(self, folder: Path, subject: Subject, *, rank: int = 0) -> None:
        """RunDirectoryError: the folder is of another subject, or a shard is damaged. rank: of this process."""
        self.folder, self.rank = folder, rank
        self._shards: dict[str, Shard] = {}
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0
        _claim(folder, _written(subject))
        self._remove_torn()
        self.look()

    def look(self) -> None:
        """Take notice of what other processes have written since."""
        new = [path for path in sorted(self.folder.glob(f"*{SUFFIX}")) if path.name not in self._shards]
        # By name: of two answers to one question, a resumed run must find the one that the uninterrupted run found.
        self._shards = dict(sorted((self._shards | {path.name: Shard(path) for path in new}).items()))
        shards = list(self._shards.values())
        keys = np.concatenate([np.zeros(0, dtype=f"V{KEY_BYTES}"), *(shard.keys for shard in shards)])
        place = [np.stack([np.full(len(s.keys), i), np.arange(len(s.keys))], axis=1) for i, s in enumerate(shards)]
        order = np.argsort(_first_half(keys), kind="stable")
        self._keys, self._heads = keys[order], _first_half(keys)[order]
        self._places: NDArray[np.int64] = np.concatenate([np.zeros((0, 2), dtype=np.int64), *place])[order]

    def __contains__(self, key: bytes) -> bool:
        return key in self._pending or self._place(key) is not None

    def __getitem__(self, key: bytes) -> bytes:
        """The answer; KeyError where it was not asked yet, RunDirectoryError where it is damaged."""
        if key in self._pending:
            return self._pending[key]
        place = self._place(key)
        if place is None:
            raise KeyError(key)
        return list(self._shards.values())[place[0]].answer(place[1])

    def expect(self, keys: Iterable[bytes]) -> None:
        """These will be asked for soon: what lies on a slow disk is read meanwhile. Unknown keys are left out."""
        shards = list(self._shards.values())
        for place in filter(None, map(self._place, keys)):
            shards[place[0]].expect(place[1])

    def answers(self) -> Iterator[bytes]:
        """All that are on disk."""
        for shard in self._shards.values():
            yield from (shard.answer(row) for row in range(len(shard.keys)))

    def put(self, key: bytes, answer: bytes) -> None:
        """Keep an answer: in memory at first, on disk with the next `flush`, or when many have gathered."""
        self._pending_bytes += len(answer)
        self._pending[key] = answer
        if self._pending_bytes >= FULL:
            self.flush()

    def flush(self) -> None:
        """Write what is new as a shard; others see it when they look."""
        if not self._pending:
            return
        entries = [Entry(*item) for item in self._pending.items()]
        named = hashlib.sha256(b"".join(entry.key for entry in entries)).hexdigest()[:16]
        write_shard(self.folder / f"{named}.rank-{self.rank}{SUFFIX}", entries)
        self._pending, self._pending_bytes = {}, 0
        self.look()

    def missing(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those that have no answer yet."""
        return [key for key in keys if key not in self]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.glob(f"*{SUFFIX}"))

    def __len__(self) -> int:
        return len(self._keys) + len(self._pending)

    def _place(self, key: bytes) -> tuple[int, int] | None:
        """(shard, row). Found by half of the key and held against all of it."""
        head = np.frombuffer(key[:8], dtype="<u8")[0]
        at = int(np.searchsorted(self._heads, head))
        while at < len(self._heads) and self._heads[at] == head:
            if self._keys[at].tobytes() == key:
                return int(self._places[at, 0]), int(self._places[at, 1])
            at += 1
        return None

    def _remove_torn(self) -> None:
        """What a killed process of this machine left unfinished; those of living ones stay."""
        if not Path("/proc/self").exists():
            return
        for path in self.folder.glob(f".*{SUFFIX}.{HERE}.*.partial"):
            if not Path("/proc", path.name.split(".")[-2]).exists():
                path.unlink(missing_ok=True)


def _first_half(keys: NDArray[np.void]) -> NDArray[np.uint64]:
    halves: NDArray[np.uint64] = np.frombuffer(keys.tobytes(), dtype="<u8")[::2]
    return halves


def _written(subject: Subject) -> str:
    return json.dumps(subject, sort_keys=True, indent=1, ensure_ascii=False)


def _claim(folder: Path, subject: str) -> None:
    """Make the folder this subject's, or see that it is."""
    file = folder / SUBJECT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            partial = folder / f".{SUBJECT}.{os.getpid()}.partial"
            partial.write_text(subject, encoding="utf-8")
            partial.replace(file)
        found = file.read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentLack(f"can't write {folder}: {error.strerror or error}") from error
    if found != subject:
        raise RunDirectoryError(
            f"{folder} holds answers to something else{_differing(found, subject)}: they would teach what this recipe "
            "does not ask for. Remove the folder: what it held is asked again."
        )


def _differing(found: str, wanted: str) -> str:
    try:
        old, new = json.loads(found), json.loads(wanted)
        names = sorted(name for name in {**old, **new} if old.get(name) != new.get(name))
    except (ValueError, AttributeError):
        return f" ({SUBJECT} can't be read)"
    return f" ({', '.join(names)} differ)"
