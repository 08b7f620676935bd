"""Mapping tables on disk: for large vocabularies it takes seconds to find out which pieces meet.

They lie in the run directory: a recipe writes nowhere else, a folder that is moved takes them along, and the training
processes, one for each device, read what the plan wrote. Keyed by both tokenizers' fingerprints and all that decides
the meeting besides them.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from dudi_kit.verbalizer.vocabulary.meeting import Meeting

FORMAT = 1
"""Raised when a table would come out another way from the same tokenizers."""


class Tables:
    """The tables of one folder."""

    def __init__(self, folder: Path | None) -> None:
        """folder: where they are kept; None keeps none."""
        self.folder = folder

    def get(self, key: dict[str, Any]) -> Meeting | None:
        """The table of a key, where it was kept and can be read."""
        file = self._file(key)
        if file is None:
            return None
        try:
            with np.load(file, allow_pickle=False) as table:
                return Meeting(table["student"].astype(np.int64), table["teacher"].astype(np.int64))
        except (OSError, ValueError, KeyError, BadZipFile):  # not there, or cut short: it is made again
            return None

    def put(self, key: dict[str, Any], meeting: Meeting) -> None:
        """Keep a table; it appears whole or not at all."""
        file = self._file(key)
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
        with partial.open("wb") as out:
            np.savez_compressed(
                out, student=meeting.student_V.astype(np.int32), teacher=meeting.teacher_V.astype(np.int32)
            )
        partial.replace(file)

    def _file(self, key: dict[str, Any]) -> Path | None:
        text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz" if self.folder else None
