"""`<recipe>.lock.json`: all that a recipe's result depends on, written down, to be held to by `--frozen`.

It lies beside the recipe as uv.lock lies beside pyproject.toml, and is made to be read in a diff: paths are relative to
the recipe's folder, keys have one order, hashes are what `sha256sum` prints. Settings that change neither what is
learned nor what is measured (`FREE`) are left out, so that a frozen run may still choose its name and micro-batch.
"""

import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from dudi_kit import __version__
from dudi_kit.data.sources import COMMIT
from dudi_kit.errors import LockMismatch
from dudi_kit.plan.chain import Stage
from dudi_kit.plan.fingerprint import WATCHING, corpus_hash, digest, drop, file_sha256, is_path, package_versions
from dudi_kit.plan.hub import Commits, Reference
from dudi_kit.recipe.confine import COLLECTIONS
from dudi_kit.recipe.load import LoadedRecipe, load_recipe
from dudi_kit.recipe.publish import resolved_json
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.evaluation import Evaluation
from dudi_kit.recipe.task_places import places, prompt_files

VERSION = 1

MEASURED = (("evaluation",), ("data", "held_out"))
"""They do not change what is learned, but what is reported."""

FREE = (*(path for path in WATCHING if path not in MEASURED), ("evaluation", "batch_size"))
"""Paths of the recipe that a frozen run may change."""

SHIPPED = (
    ("data", "templates/*.jinja"),
    ("verbalizer", "templates/*.jinja"),
    ("verbalizer", "label_words/*.yaml"),
    ("evaluate", "tasks/*.yaml"),
    ("evaluate", "requests.yaml"),
)
"""Files of our own that decide what models read, are taught and are asked: room and pattern."""

HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""A commit or a sha256."""

LONGEST = 60
"""Characters of a value in a message."""


class Difference(NamedTuple):
    """Something that is not as the lock says."""

    path: str
    locked: str
    found: str

    def __str__(self) -> str:
        return f"{self.path}: locked {self.locked}, found {self.found}"


def lock_file(recipe: Path) -> Path:
    """Where the lock of a recipe file lies."""
    return recipe.with_name(f"{recipe.stem}.lock.json")


def outline(recipe: LoadedRecipe, written: Stage, pinned: Stage, commits: Commits) -> dict[str, Any]:
    """The lock, but for the tokenizers. written, pinned: the chain as the recipes name it, and with their commits."""
    folder = recipe.path.parent.resolve()
    stages = distinct(written)
    hashes = {role: stage.lock for role, stage in roles(pinned).items()}
    return {
        "lock": VERSION,
        "recipe": recipe.path.name,
        "recipe_version": recipe.recipe.version,
        "dudi_kit": __version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "packages": package_versions(),
        "hub": _hub(commits),
        "files": _file_hashes(_files(recipe, stages.values()), folder),
        "shipped": _shipped(),
        "stages": {
            role: {
                "recipe": _relative(stage.file, folder),
                "hash": hashes[role],
                "settings": _relative_settings(settings_of(stage.recipe), folder),
            }
            for role, stage in stages.items()
        },
    }


def distinct(main: Stage) -> dict[str, Stage]:
    """The stages of a chain by their role, each once: a cold start's teacher is mostly the student's, too."""
    first: dict[Path, tuple[str, Stage]] = {}
    for role, stage in roles(main).items():
        first.setdefault(stage.run.path, (role, stage))
    return dict(first.values())


def roles(main: Stage) -> dict[str, Stage]:
    """The stages of a chain by what they are to the recipe: `teacher`, `start`, `teacher.start`, …, and `student`."""
    return {".".join(trail) or "student": stage for trail, stage in _walk(main, ())}


def _walk(stage: Stage, trail: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Stage]]:
    for role, needed in (("teacher", stage.teacher), ("start", stage.start)):
        if needed is not None:
            yield from _walk(needed, (*trail, role))
    yield trail, stage


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe without what a frozen run may change."""
    settings: dict[str, Any] = json.loads(resolved_json(recipe))
    for path in FREE:
        drop(settings, path)
    return settings


def read(file: Path, recipe: Path) -> dict[str, Any]:
    """The lock of a file; LockMismatch where there is none that this version reads."""
    make = f"make it with `dudi-kit lock {recipe}`"
    try:
        lock = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LockMismatch(f"--frozen: there is no lock {file}; {make}, and commit it beside the recipe.") from None
    except (OSError, ValueError) as error:
        raise LockMismatch(f"{file} can't be read as a lock: {error}; {make}.") from error
    version = lock.get("lock") if isinstance(lock, dict) else None
    if version != VERSION:
        raise LockMismatch(f"{file} is no lock of version {VERSION}, the one that this dudi-kit writes; {make}.")
    try:
        whole = without_tokenizers(lock) and all(COMMIT.fullmatch(commit) for commit in commits_in(lock).values())
    except (KeyError, AttributeError, TypeError):
        whole = False
    if not whole:
        raise LockMismatch(f"{file} is damaged: parts are missing, or a commit is none; {make}.")
    return dict(lock)


def commits_in(lock: Mapping[str, Any]) -> dict[Reference, str]:
    """The commits that a lock holds."""
    return {
        Reference(kind, name, revision): commit
        for kind in ("models", "datasets")
        for name, revisions in lock["hub"][kind].items()
        for revision, commit in revisions.items()
    }


def without_tokenizers(lock: Mapping[str, Any]) -> dict[str, Any]:
    """What `outline` makes of the same things."""
    stages = {
        role: {key: value for key, value in stage.items() if key != "tokenizers"}
        for role, stage in lock["stages"].items()
    }
    return {**lock, "stages": stages}


def differences(locked: Any, found: Any) -> list[Difference]:
    """Every leaf in which two locks differ, in their order. Hashes of stages only where nothing else explains them."""
    all_of_them = list(_differing(locked, found, ()))
    reasons = [difference for path, difference in all_of_them if path[-1:] != ("hash",)]
    return reasons or [difference for _, difference in all_of_them]


def _differing(locked: Any, found: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Difference]]:
    if (_is_table(locked) and found is None) or (_is_table(found) and locked is None):
        locked, found = locked or {}, found or {}
    if isinstance(locked, dict) and isinstance(found, dict):
        for key in {**locked, **found}:
            yield from _differing(locked.get(key), found.get(key), (*path, key))
    elif locked != found:
        yield path, Difference(".".join(path), _told(locked), _told(found))


def _is_table(value: Any) -> bool:
    """Texts by name, such as the commits of a model: each is named where all are new or gone."""
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _told(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str) and HASH.fullmatch(value):
        return f"{value[:12]}…"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _hub(commits: Commits) -> dict[str, dict[str, dict[str, str]]]:
    """{kind: {name: {revision: commit}}}."""
    table: dict[str, dict[str, dict[str, str]]] = {"models": {}, "datasets": {}}
    for reference in sorted(commits):
        table[reference.kind].setdefault(reference.name, {})[reference.revision] = commits[reference]
    return table


def _files(recipe: LoadedRecipe, stages: Iterable[Stage]) -> Iterator[Path]:
    """Every file that the chain reads: recipes with their parents, data, templates, the files of model folders."""
    for stage in stages:
        yield from recipe.files if stage.file == recipe.path else load_recipe(stage.file, root=recipe.root).files
        for path in _paths(json.loads(resolved_json(stage.recipe))):
            yield from (file for file in path.iterdir() if file.is_file()) if path.is_dir() else (path,)
        yield from _of_tasks(stage.recipe.evaluation)


def _of_tasks(evaluation: Evaluation) -> Iterator[Path]:
    """What named tasks read below the folders that hold benchmarks: rows, worked examples, SEA-HELM's prompts."""
    for place in places(evaluation):
        yield from place.files
    if evaluation.seahelm_home:
        yield from prompt_files(Path(evaluation.seahelm_home))


def _paths(value: Any, where: tuple[str, ...] = (), languages: Iterable[str] = ()) -> Iterator[Path]:
    """What the paths of a resolved recipe lead to. languages: what `{language}` stands for."""
    if isinstance(value, dict):
        inner = value.get("languages") or languages
        for key, item in value.items():
            yield from _paths(item, (*where, key), inner)
    elif is_path(where, value) and where[-1] not in COLLECTIONS:
        codes = languages if "{language}" in value else [""]
        yield from (Path(value.replace("{language}", code)) for code in codes)


def model_hashes(folder: Path) -> dict[str, str | None]:
    """sha256 of each file of a trained model, but for its card, which every report writes anew."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != "README.md")
    return {file.name: _sha256(file) for file in files}


def _file_hashes(files: Iterable[Path], folder: Path) -> dict[str, str | None]:
    """sha256 of each file, None where there is none (planning will say so); large ones side by side."""
    by_name = {_relative(file, folder): file for file in files}
    names = sorted(by_name)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets go of the interpreter's lock
        return dict(zip(names, pool.map(_sha256, [by_name[name] for name in names]), strict=True))


def _sha256(file: Path) -> str | None:
    """Of the whole file, weights too: the middle of a file is as good a place for a change as its ends."""
    return file_sha256(file) if file.is_file() else None


def _shipped() -> dict[str, str]:
    """What of dudi-kit itself decides: its code, since a version is easily edited, its corpus and its templates."""
    files = {
        f"{room}/{file.relative_to(home)}": file
        for room, pattern in SHIPPED
        for home in [Path(str(resources.files(f"dudi_kit.{room}")))]
        for file in sorted(home.glob(pattern))
    }
    hashes = {name: _sha256(file) or "" for name, file in files.items()}
    return {"code": _code_hash(), "corpus": corpus_hash(), **hashes}


def _code_hash() -> str:
    home = Path(str(resources.files("dudi_kit")))
    return digest({str(file.relative_to(home)): _sha256(file) for file in sorted(home.rglob("*.py"))})


def _relative(file: Path, folder: Path) -> str:
    """The path from the recipe's folder, so that a moved folder keeps its lock; absolute where nothing is shared."""
    shared = os.path.commonpath([file, folder])
    return str(file) if shared == file.anchor else os.path.relpath(file, folder)


def _relative_settings(value: Any, folder: Path, where: tuple[str, ...] = ()) -> Any:
    if isinstance(value, dict):
        return {key: _relative_settings(item, folder, (*where, key)) for key, item in value.items()}
    return _relative(Path(value), folder) if is_path(where, value) else value
