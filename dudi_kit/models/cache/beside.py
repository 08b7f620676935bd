"""Tensors that all answers of a store need, in a file beside them whose name holds a hash of its content."""

import fcntl
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from dudi_kit.errors import EnvironmentLack, RunDirectoryError
from dudi_kit.models.cache.shards import SUFFIX


def save_beside(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Write it whole or not at all. What another run has saved meanwhile stays: its answers may be written by it."""
    content = save(dict(tensors))
    path = folder / f"{name}-{_hash(content)}.safetensors"
    partial = folder / f".{name}.partial"
    try:
        with (folder / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if any(folder.glob(f"{name}-*.safetensors")):
                return
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    except OSError as error:
        raise EnvironmentLack(f"can't write {path}: {error.strerror or error}. Free some space.") from error


def load_beside(folder: Path, name: str) -> dict[str, Tensor] | None:
    """What was saved; None where nothing was. RunDirectoryError: it is damaged, or gone while its answers are there."""
    for path in sorted(folder.glob(f"{name}-*.safetensors")):
        content = path.read_bytes()
        if _hash(content) != path.stem.removeprefix(f"{name}-"):
            raise RunDirectoryError(f"{path} is damaged, and all answers beside it need it. Remove {folder}.")
        return load(content)
    if any(folder.glob(f"*{SUFFIX}")):
        raise RunDirectoryError(f"{folder} lacks its {name}-….safetensors, which all its answers need. Remove it.")
    return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
