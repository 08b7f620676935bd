"""Task files: found by name or path, read with all their mistakes at once, as recipes are.

A task file is untrusted like a recipe: it names files below folders that the user gave, and nothing else.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path as FilePath
from pathlib import PurePath

from pydantic import ValidationError

from dudi_kit.recipe.compose import read_file
from dudi_kit.recipe.diagnostics import InvalidRecipeError, Path, Problem, listed, nearest, sort
from dudi_kit.recipe.paths import HUB_NAME
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
from dudi_kit.recipe.sentences import problems
from dudi_kit.recipe.yaml_nodes import Source, lines_of, read_yaml

SHIPPED = FilePath(str(resources.files("dudi_kit.evaluate") / "tasks"))
"""Where the task files that ship with dudi-kit lie."""

PLACEHOLDER = re.compile(r"\{(\w+)\}")
OWN = frozenset({"answer_tag", "labels"})
"""Placeholders that the task file fills itself."""


def is_file_name(task: str) -> bool:
    """Whether a recipe names a task by a file, not by its name."""
    return task.endswith((".yaml", ".yml"))


def shipped() -> dict[str, FilePath]:
    """Name → file of every task that ships."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def task_path(task: str) -> FilePath:
    """The file of a task; KeyError for a name that no task that ships has."""
    return FilePath(task) if is_file_name(task) else shipped()[task]


def load_task(task: str) -> TaskFile:
    """The task of a name or a file; InvalidRecipeError has all that is wrong with the file."""
    path = task_path(task)
    return read_task(path, path.stat().st_mtime_ns if path.exists() else 0)


@cache
def read_task(path: FilePath, changed: int) -> TaskFile:
    """The task of a file. changed: tells versions of the file apart, since a read one is kept."""
    text = read_file(path)
    source = Source(os.path.normpath(path), path.parent, lines_of(text))
    reading = read_yaml(text, source)
    values = reading.root.plain()
    try:
        task = TaskFile.model_validate(values)
        found = list(mistakes(task))
    except ValidationError as error:
        task, found = None, problems(error, values, TaskFile)
    findings = [*reading.findings, *(reading.root.locate(problem) for problem in found)]
    if task is None or findings:
        raise InvalidRecipeError(sort(findings))
    return task


def hub_datasets(task: TaskFile) -> dict[str, set[str]]:
    """Dataset on the hub → the revisions at which the task names it."""
    found: dict[str, set[str]] = {}
    for source in (each for language in task.languages for each in task.sources_in(language)):
        if isinstance(source, HubTable):
            found.setdefault(source.hub, set()).add(source.revision)
    return found


# --- rules that span fields -------------------------------------------------------------------------------------------


def mistakes(task: TaskFile) -> Iterator[Problem]:
    """What a schema can't see."""
    yield from _labels(task.labels or {}, ("labels",))
    for i, source in enumerate(task.sources or ()):
        yield from _source(source, ("sources", i))
    for language in task.languages:
        yield from _language(task, language)
    for dataset, revisions in hub_datasets(task).items():
        if len(revisions) > 1:
            message = f"{dataset} is read at {listed(sorted(revisions))}: a lock could not tell them apart"
            yield Problem(("languages",), "exclusive", message, "name one revision of a dataset", at_key=True)


def _labels(labels: Mapping[str, str], where: Path) -> Iterator[Problem]:
    """Answers are compared without capitals: two labels that differ only in them are one."""
    first: dict[str, str] = {}
    for label, word in labels.items():
        plain = folded(word)
        if plain in first:
            message = f"{word!r} stands for {first[plain]!r} too once it is lower-cased"
            yield Problem((*where, label), "duplicate", message, "answers are compared without capitals: take another")
        first.setdefault(plain, label)


def folded(word: str) -> str:
    """What is compared of a label word: NFC, lower case, no space outside."""
    return unicodedata.normalize("NFC", word).strip().lower()


def _language(task: TaskFile, language: str) -> Iterator[Problem]:
    own, where = task.languages[language], ("languages", language)
    labels, sources = task.labels_in(language), task.sources_in(language)
    yield from _labels(own.labels or {}, (*where, "labels"))
    if task.has_labels and not labels:
        message = f"{task.metric} compares labels, and there are none here, nor for the whole task"
        yield Problem(where, "needs-labels", message, "add 'labels: {…}', or choose another metric")
    if not sources:
        yield Problem(where, "needs-data", "no rows: 'sources' is neither here nor at the top", "add 'sources: [...]'")
    yield from _placeholders(task, language)
    for key, words in (("seahelm_labels", own.seahelm_labels), ("wording", own.wording)):
        known = labels if key == "seahelm_labels" else task.fields
        for name in words:
            if name not in known:
                yield Problem((*where, key, name), "bad-choice", f"{listed(known)} expected", _near(name, known))
    for i, source in enumerate(own.sources or ()):
        yield from _source(source, (*where, "sources", i))
    for i, source in enumerate(sources):
        place = (*where, "sources", i) if own.sources else ("sources", i)
        yield from _columns(task, source, place)
        yield from _values(source, labels, place)
        if task.shots.base + task.shots.instruct and source.examples is None:
            message = f"{language} has no worked examples, and the task's shots are not 0"
            yield Problem(place, "needs-examples", message, "add 'examples: {…}', or 'shots: {instruct: 0, base: 0}'")


def _placeholders(task: TaskFile, language: str) -> Iterator[Problem]:
    own, where = task.languages[language], ("languages", language)
    allowed = {
        "question": {*task.fields, *OWN},
        "instruction": OWN,
        "format": OWN,
    }
    for key, known in allowed.items():
        for name in PLACEHOLDER.findall(getattr(own, key)):
            if name not in known:
                offered = listed(f"{{{each}}}" for each in sorted(known))
                yield Problem((*where, key), "bad-placeholder", f"{{{name}}} is nothing here", f"there is {offered}")
    shown = set(PLACEHOLDER.findall(own.question))
    for field in task.fields:
        if field not in shown:
            message = f"{{{field}}} is a field of the task, and is not shown"
            yield Problem((*where, "question"), "missing-placeholder", message, f"put {{{field}}} into it")
    if own.answer_tag and "{answer_tag}" not in own.format:
        message = "{answer_tag} is not in 'format': no model could know it"
        key = "format" if own.format else "answer_tag"
        yield Problem((*where, key), "missing-placeholder", message, "tell the form of the answer in 'format'")


def _columns(task: TaskFile, source: TaskSource, where: Path) -> Iterator[Problem]:
    if isinstance(source, BuiltinRequests):
        return
    wanted = [*task.fields, *(["label"] if task.has_references else [])]
    for name in wanted:
        if name not in source.columns:
            message = f"no column for {name!r}"
            yield Problem((*where, "columns"), "missing-key", message, f"add '{name}: …'")
    for name in source.columns:
        if name not in wanted:
            message = f"{name!r} is no field of the task"
            yield Problem((*where, "columns", name), "unknown-key", message, _near(name, wanted), at_key=True)


def _values(source: TaskSource, labels: Mapping[str, str], where: Path) -> Iterator[Problem]:
    given: Mapping[str, str] = source.classes if isinstance(source, LocalClasses) else {}
    for key, names in (("values", source.values.values()), ("classes", given)):
        for name in names:
            if labels and name not in labels:
                message = f"{name!r} is no label"
                yield Problem((*where, key), "bad-choice", message, _near(name, labels) or f"there is {listed(labels)}")


def _source(source: TaskSource, where: Path) -> Iterator[Problem]:
    for key, path in _paths(source):
        if PurePath(path).is_absolute() or ".." in PurePath(path).parts or path.startswith("~"):
            message = f"{path!r} leads out of the folder that it is looked for in"
            yield Problem((*where, *key), "outside", message, "name a file below it")
    if isinstance(source, HubTable) and not (re.fullmatch(HUB_NAME, source.hub) and "/" in source.hub):
        yield Problem((*where, "hub"), "bad-model-name", f"{source.hub!r} is no hub name (owner/name)")
    examples = source.examples
    if examples is not None:
        given = sorted(examples.model_fields_set)
        if len(given) != 1:
            message = f"one of hold_out, path or split expected, got {listed(given) if given else 'none'}"
            yield Problem((*where, "examples"), "exclusive", message, "name one")
        elif examples.split and not isinstance(source, HubTable):
            yield Problem((*where, "examples", "split"), "not-here", "only a hub dataset has splits", "name its 'path'")
        elif examples.path and isinstance(source, HubTable | LocalLines | LocalClasses | BuiltinRequests):
            message = "only a source of one file has another one beside it"
            yield Problem((*where, "examples", "path"), "not-here", message, "write 'split' or 'hold_out'")


def _paths(source: TaskSource) -> Iterator[tuple[Path, str]]:
    match source:
        case LocalFile():
            yield ("data",), source.data
        case LocalLines():
            yield from ((("lines", name), path) for name, path in source.lines.items())
        case LocalClasses():
            yield from ((("classes", name), path) for name, path in source.classes.items())
        case BesideFile():
            yield ("path",), source.path
        case SeahelmFile():
            yield ("seahelm",), source.seahelm
    if source.examples is not None and source.examples.path:
        yield ("examples", "path"), source.examples.path


def _near(name: str, known: Mapping[str, object] | list[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else ""
