"""What of the frozen models' answers is kept on disk: for what subject, how large it gets, and whether all is there.

A subject is all that an answer depends on besides the text that is asked about: weights, their precision, tokenizer. It
is decided here once and written in the plan, so that every training process asks the same store.
"""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from dudi_kit.data.encode import Encoder
from dudi_kit.data.tokenizers import fingerprint
from dudi_kit.errors import EnvironmentLack
from dudi_kit.models.cache.kept import ALWAYS
from dudi_kit.models.cache.store import Store, key_of, store_folder
from dudi_kit.plan.chain import Stage
from dudi_kit.plan.fingerprint import digest
from dudi_kit.plan.hub import DEFAULT_BRANCH, Reference, resolve
from dudi_kit.plan.job import BYTES
from dudi_kit.plan.layout import RunDir, write_json
from dudi_kit.plan.models import given
from dudi_kit.plan.rows import Row, TrainingRows
from dudi_kit.plan.schema import ModelSource, PlannedCache, PlannedStore
from dudi_kit.plan.teaching import Teaching
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.cache import HiddenCache, NoCache, TeacherCache, TopKCache
from dudi_kit.recipe.schema.models import PretrainedStudent
from dudi_kit.recipe.schema.signals import FrozenReference

WAY_OF_ANSWERING = 1
"""Goes up when the same question would be answered in another way: then nothing old is found any more."""

BYTES_OF_A_PIECE = 2.2
"""Of a kept piece: 8 bits of probability, and its id. Measured on SIB-200, see benchmarks/cache.md."""

BYTES_OF_A_DIRECTION = 0.57
"""Of a coefficient of the sketch, likewise."""

BYTES_OF_A_POSITION = 3
"""Number of pieces, and mass of the rest."""

REFERENCE_BYTES = 36
"""Of a row: 8 for its log-likelihood, the rest for its key and place."""


def teacher_key(row: Row) -> bytes:
    """Of the teacher's answer to a row's own response."""
    return key_of(row.teacher_prompts["off_policy"], heard(row))


def reference_key(row: Row) -> bytes:
    """Of the reference's answer to it."""
    return key_of(row.prompt, row.response)


def heard(row: Row) -> list[int]:
    """The response in the teacher's tokens."""
    return row.reading.ids if row.reading else row.response


def open_store(run: RunDir, planned: PlannedStore, *, rank: int = 0) -> Store:
    """The store of a plan."""
    subject = _with_content(planned.subject, planned.trained, run.caches)
    return Store(store_folder(run.caches, planned.who, subject), subject, rank=rank)


def planned_cache(
    stage: Stage, student: Encoder, teaching: Teaching | None, made: TrainingRows, draws: int
) -> PlannedCache | None:
    """What the stage keeps; None where it keeps nothing. draws: rows that all steps draw together."""
    recipe = stage.recipe
    cache = recipe.teacher.cache if recipe.teacher else NoCache()
    rows = [made.rows[number] for number in drawn(made, draws)]
    teacher = None
    if teaching is not None and not isinstance(cache, NoCache) and recipe.signals.off_policy.weight > 0:
        teacher = _teacher_store(stage, teaching, cache, rows)
    reference = _reference_store(stage, student, rows) if _asks_again(recipe, rows, draws) else None
    if teacher is None and reference is None:
        return None
    leaves = teacher is not None and recipe.signals.on_policy.weight == 0
    return PlannedCache(teacher=teacher, reference=reference, teacher_leaves=leaves)


def drawn(made: TrainingRows, number: int) -> list[int]:
    """Which rows the first `number` draws see, each once."""
    seen: dict[int, None] = {}
    for epoch in range(-(-number // made.mixture.rows_per_epoch)):
        order = made.mixture.order(epoch)[: number - epoch * made.mixture.rows_per_epoch]
        seen |= dict.fromkeys(order)
        if len(seen) == len(made.rows):
            break
    return list(seen)


def _asks_again(recipe: Recipe, rows: list[Row], draws: int) -> bool:
    """A frozen reference is asked for some row twice.

    Not so the weights under an adapter that ZeRO-3 shares out: all processes have to ask them at once.
    """
    sequence = recipe.signals.sequence
    frozen = sequence.weight > 0 and isinstance(sequence.reference, FrozenReference)
    shared_out = recipe.student.adapter is not None and recipe.deepspeed.stage == 3
    return frozen and not shared_out and draws > len(rows)


def _teacher_store(stage: Stage, teaching: Teaching, cache: TeacherCache, rows: list[Row]) -> PlannedStore:
    tokens = sum(len(heard(row)) for row in rows)
    subject = {
        "way": WAY_OF_ANSWERING,
        "weights": stage.teacher.lock if stage.teacher else weights_of(teaching.source, stage.run.caches),
        "dtype": teaching.source.dtype,
        "quantization": teaching.source.quantization,
        "tokenizer": fingerprint(teaching.encoder.tokenizer),
        "chat_template": digest(teaching.encoder.tokenizer.chat_template),
        "answers": cache.model_dump(mode="json"),
    }
    each = token_bytes(cache, teaching.config.hidden_size, BYTES[teaching.source.dtype])
    trained = stage.teacher.run if stage.teacher else None
    return _store(stage, "teacher", subject, trained, [teacher_key(row) for row in rows], round(each * tokens))


def _reference_store(stage: Stage, student: Encoder, rows: list[Row]) -> PlannedStore:
    recipe = stage.recipe
    subject = {
        "way": WAY_OF_ANSWERING,
        "weights": _start_of(stage),
        "precision": recipe.training.precision,
        "adapter": digest(recipe.student.adapter.model_dump(mode="json")) if recipe.student.adapter else None,
        "tokenizer": fingerprint(student.tokenizer),
    }
    keys = [reference_key(row) for row in rows]
    trained = stage.start.run if stage.start else None
    return _store(stage, "reference", subject, trained, keys, REFERENCE_BYTES * len(rows))


def _start_of(stage: Stage) -> str:
    """What tells the student's first weights."""
    if stage.start is not None:
        return stage.start.lock
    student = stage.recipe.student
    return (
        weights_of(given(student, "fp32"), stage.run.caches) if isinstance(student, PretrainedStudent) else stage.lock
    )


def _store(
    stage: Stage,
    who: Literal["teacher", "reference"],
    subject: dict[str, Any],
    trained: RunDir | None,
    keys: Iterable[bytes],
    size: int,
) -> PlannedStore:
    """trained: the run whose student the frozen model is."""
    wanted, final = set(keys), str(trained.final) if trained else None
    whole = _with_content(subject, final, stage.run.caches)
    folder = store_folder(stage.run.caches, who, whole)
    there = wanted - set(Store(folder, whole).missing(wanted)) if folder.is_dir() else set()
    return PlannedStore(
        who=who, subject=subject, trained=final, rows=len(wanted), answered=len(there), bytes=size, folder=str(folder)
    )


def _with_content(subject: dict[str, Any], trained: str | None, memory: Path) -> dict[str, Any]:
    """With what the weights are, once they are there: trained anew under the same lock they are others, by rounding at
    least, and what those of before have answered is not theirs."""
    if trained is None or not Path(trained).is_dir():
        return subject
    return subject | {"content": weights_of(ModelSource(path=trained, dtype="fp32"), memory)}


def token_bytes(cache: TeacherCache, hidden: int, size: int) -> float:
    """Of a token, estimated. hidden, size: width of the teacher's hidden states, and bytes of one element."""
    if isinstance(cache, HiddenCache):
        return hidden * size
    assert isinstance(cache, TopKCache), "nothing is kept without a cache"
    return BYTES_OF_A_POSITION + BYTES_OF_A_PIECE * max(cache.k, ALWAYS) + BYTES_OF_A_DIRECTION * cache.rank


def weights_of(source: ModelSource, memory: Path) -> str:
    """Hash of a folder's weights, whole, or name and commit on the hub. memory: folder that remembers large hashes."""
    folder = Path(source.path)
    if not folder.is_absolute():
        reference = Reference("models", source.path, source.revision or DEFAULT_BRANCH)
        return f"{source.path}@{resolve([reference]).commits[reference]}/{source.gguf_file or ''}"
    files = [folder / source.gguf_file] if source.gguf_file else sorted(folder.glob("*.safetensors"))
    known = _remembered(memory)
    before, hashes = len(known), {}
    for file in [*files, *folder.glob("config.json")]:
        stat = file.stat()
        place = f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        if place not in known:
            with file.open("rb") as opened:
                known[place] = hashlib.file_digest(opened, "sha256").hexdigest()
        hashes[file.name] = known[place]
    if len(known) > before:
        with suppress(EnvironmentLack):  # it only saves time, and another command may be writing it just now
            write_json(memory / "weights.json", known)
    return digest(hashes)


def _remembered(memory: Path) -> dict[str, str]:
    try:
        found = json.loads((memory / "weights.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
