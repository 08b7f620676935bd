"""What a result depends on, as hashes: two recipes with the same lock hash train the same student.

Paths are replaced by the content they lead to, so that a moved folder keeps its hash and an edited file changes it.
Settings that change what is watched but not what is learned (held-out data, tasks, checkpoints, logging) are left out.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from dudi_kit import __version__
from dudi_kit.recipe.derive import demonstrated, reading_terms
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.paths import PATH_FIELDS, is_plain_file
from dudi_kit.recipe.publish import resolved_json
from dudi_kit.recipe.schema import Recipe
from dudi_kit.verbalizer.label_words.files import SHIPPED

WATCHING = (
    ("version",),
    ("requires",),
    ("name",),
    ("description",),
    ("output",),
    ("evaluation",),
    ("data", "held_out"),
    ("teacher", "placement"),
    ("teacher", "device_memory"),
    ("training", "micro_batch_size"),
    ("training", "activation_checkpointing"),
    ("training", "compile"),
    ("training", "packing"),
    ("training", "checkpoint_every"),
    ("training", "keep_checkpoints"),
    ("training", "log_every"),
    ("training", "gradient_norms_every"),
    ("rollouts", "prompts_at_once"),
    ("rollouts", "log_samples"),
    ("rollouts", "engine", "url"),
    ("rollouts", "engine", "timeout"),
    ("rollouts", "engine", "concurrency"),
    ("deepspeed", "offload", "nvme_path"),
    ("training", "stall_timeout"),
)
"""Paths of the recipe that do not change what is learned."""

REPLACED = (("student", "cold_start"), ("teacher", "recipe"), ("student", "recipe"))
"""Paths that a dependency's own hash stands for."""

WHOLE = 64 << 20
"""Files up to this many bytes are hashed whole; larger ones by size, first and last MiB (weights of tens of GB)."""

DATA_ROOM = Path(str(resources.files("dudi_kit.data")))
"""Where the built-in corpus lies."""

VERBALIZER_ROOM = Path(str(resources.files("dudi_kit.verbalizer")))
"""Where the templates of demonstrations lie."""

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "tokenizers",
    "bitsandbytes",
    "peft",
    "datasets",
    "numpy",
    "gguf",
    "safetensors",
    "jinja2",
    "scikit-learn",
    "sacrebleu",
    "scipy",
)


def parts(recipe: Recipe, dependencies: Mapping[str, str]) -> dict[str, Any]:
    """All that the result depends on: settings, content hashes and the hashes of the stages that are built first."""
    settings = json.loads(resolved_json(recipe))
    picked_by = _picking_the_final(settings)
    for path in (*WATCHING, *REPLACED):
        drop(settings, path)
    return {
        "dudi_kit": __version__,
        "settings": _with_contents(settings),
        "verbalizer": _shipped_words(recipe),
        "dependencies": dict(sorted(dependencies.items())),
        **picked_by,
    }


def _picking_the_final(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which step becomes the final model, where that is not the last one: then it is no mere watching."""
    evaluation = settings["evaluation"]
    during = evaluation["during_training"]
    if during is None or during["final"] == "last":
        return {}
    names = evaluation["tasks"] if during["tasks"] is None else during["tasks"]
    chosen = {name: evaluation["tasks"][name] for name in names}
    kept = {key: evaluation[key] for key in ("during_training", "data_home", "seahelm_home", "seed")}
    watched = {"evaluation": kept | {"tasks": chosen}, "data": {"held_out": settings["data"]["held_out"]}}
    return {"final": _with_contents(watched)}


def _shipped_words(recipe: Recipe) -> dict[str, str]:
    """Hashes of the templates and requests that ship, where demonstrations are read that they are part of."""
    demonstration = recipe.verbalizer.demonstration
    if not (demonstrated(recipe) or (recipe.teacher is not None and reading_terms(recipe))):
        return {}
    own = demonstration.template
    codes = [] if isinstance(own, str) else [code for code in LANGUAGES if code not in (own or {})]
    files = [VERBALIZER_ROOM / "templates" / f"{code}.jinja" for code in codes]
    files += [VERBALIZER_ROOM / "requests.yaml"] if demonstration.source == "teacher" else []
    return {file.name: file_hash(file) for file in files}


def digest(value: Any) -> str:
    """sha256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def package_versions() -> dict[str, str | None]:
    """Version of each package that the numbers may depend on."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def drop(settings: dict[str, Any], path: tuple[str, ...]) -> None:
    """Remove what stands at a path of a resolved recipe, where something does."""
    *parents, last = path
    for key in parents:
        settings = settings.get(key) or {}
    settings.pop(last, None)


def is_path(where: tuple[str, ...], value: Any) -> bool:
    """Whether the text at this place of a resolved recipe leads to a file or folder; a prompt may begin with / too."""
    patterns = (pattern for pattern, _ in PATH_FIELDS if len(pattern) == len(where))
    fits = any(all(name in ("*", key) for name, key in zip(pattern, where, strict=True)) for pattern in patterns)
    return fits and isinstance(value, str) and value.startswith("/")


def _with_contents(value: Any, where: tuple[str, ...] = (), languages: Sequence[str] = ()) -> Any:
    """The same value, each path replaced by the hash of what it leads to. languages: what `{language}` stands for."""
    if isinstance(value, dict):
        inner = value.get("languages") or languages
        named = {key: _with_contents(item, (*where, key), inner) for key, item in value.items()}
        shipped = {"corpus": corpus_hash()} if "builtin" in value else {}
        if where[:2] == ("data", "train") and value.get("labels"):
            shipped["label_words"] = digest({file.name: file_hash(file) for file in sorted(SHIPPED.glob("*.yaml"))})
        return named | shipped
    if is_path(where, value):
        codes = languages if "{language}" in value else [""]
        return [content_hash(Path(value.replace("{language}", code))) for code in codes]
    return value


def content_hash(path: Path) -> str:
    """Hash of a file or of a folder's files; `missing` where there is none (loading it will say so)."""
    if path.is_dir():
        return folder_hash(path)
    return file_hash(path) if is_plain_file(path) else "missing"


def folder_hash(folder: Path) -> str:
    """Hash over the names and contents of a folder's own files (a model folder's weights, config and tokenizer)."""
    return digest({file.name: file_hash(file) for file in sorted(folder.iterdir()) if file.is_file()})


def file_sha256(path: Path) -> str:
    """What `sha256sum` prints of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file, or of its size and both ends where it is large."""
    size = path.stat().st_size
    sha = hashlib.sha256(f"{size}:".encode())
    for chunk in _chunks(path, size):
        sha.update(chunk)
    return sha.hexdigest()


def _chunks(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        if size <= WHOLE:
            while chunk := file.read(1 << 20):
                yield chunk
            return
        yield file.read(1 << 20)
        file.seek(-(1 << 20), 2)
        yield file.read()


def corpus_hash() -> str:
    """Of the phrases, and of the tables that combine them into rows; not of the text that describes them."""
    files = (*sorted(DATA_ROOM.glob("corpus/*.yaml")), DATA_ROOM / "builtin.py")
    return digest({file.name: file_hash(file) for file in files})
