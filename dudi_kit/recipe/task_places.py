"""Where the rows of a task lie: the first of its sources that is there, and the files that it reads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dudi_kit.errors import DataError
from dudi_kit.recipe.paths import is_plain_file
from dudi_kit.recipe.schema.evaluation import Evaluation, NamedTask
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
from dudi_kit.recipe.task_files import load_task, task_path

SEAHELM_TASKS = "seahelm_tasks"
"""Folder of a SEA-HELM checkout in which its prompts are."""


@dataclass(frozen=True)
class Homes:
    """Folders in which the files of tasks lie; None where the recipe names none."""

    data: Path | None = None
    seahelm: Path | None = None
    task: Path | None = None
    """Folder of the task file."""


class Place(NamedTuple):
    """Where an entry of `evaluation.tasks` finds its rows in one language."""

    entry: str
    language: str
    source: TaskSource
    files: tuple[Path, ...]
    """Of the rows and of the worked examples; none of a hub dataset."""


def places(evaluation: Evaluation) -> Iterator[Place]:
    """Of every named task in every language that it is asked in; one without rows has none, as evaluation will say."""
    for name, entry in evaluation.tasks.items():
        if not isinstance(entry, NamedTask):
            continue
        task, homes = named_task(entry), homes_of(evaluation, entry)
        for language in entry.languages or task.languages:
            try:
                source = first_there(task, language, homes)
            except DataError:
                continue
            yield Place(name, language, source, tuple(files_of(task, language, source, homes).values()))


def named_task(entry: NamedTask) -> TaskFile:
    """The task that an entry names, its hub datasets at the revisions that the entry names."""
    task = load_task(entry.task)
    return at_revisions(task, entry.revisions) if entry.revisions else task


def at_revisions(task: TaskFile, revisions: Mapping[str, str]) -> TaskFile:
    """The task with its hub datasets at other revisions. revisions: `owner/name` → commit, tag or branch."""

    def there(sources: list[TaskSource] | None) -> list[TaskSource] | None:
        return sources and [
            source.model_copy(update={"revision": revisions[source.hub]})
            if isinstance(source, HubTable) and source.hub in revisions
            else source
            for source in sources
        ]

    languages = {code: own.model_copy(update={"sources": there(own.sources)}) for code, own in task.languages.items()}
    return task.model_copy(update={"sources": there(task.sources), "languages": languages})


def homes_of(evaluation: Evaluation, entry: NamedTask) -> Homes:
    """Where the files of an entry's task are looked for."""
    return Homes(
        data=Path(evaluation.data_home) if evaluation.data_home else None,
        seahelm=Path(evaluation.seahelm_home) if evaluation.seahelm_home else None,
        task=task_path(entry.task).parent,
    )


def first_there(task: TaskFile, language: str, homes: Homes) -> TaskSource:
    """The first source whose files are there, or that is on the hub. DataError lists what was looked for."""
    looked: list[str] = []
    for source in task.sources_in(language):
        if isinstance(source, HubTable | BuiltinRequests):
            return source
        home = _home(source, homes)
        files = [filled(file, task, language) for file in _written(source).values()]
        missing = [file for file in files if home is None or not is_plain_file(home / file)]
        if home is not None and not missing:
            return source
        looked += [
            str(home / file) if home else f"{file} (evaluation.{_setting(source)} is not set)" for file in missing
        ]
    raise DataError(
        f"no rows in {language}: looked for {', '.join(looked)}. Set evaluation.data_home to the folder that has them, "
        "or leave the language out."
    )


EXAMPLES = "worked examples"
"""Key of the file with these, among the files of a source."""


def files_of(task: TaskFile, language: str, source: TaskSource, homes: Homes) -> dict[str, Path]:
    """Column, label or `rows` → file, and the file of worked examples; empty for rows that are no files."""
    home = _home(source, homes)
    if home is None:
        return {}
    written = _written(source)
    if written and source.examples is not None and source.examples.path:
        written[EXAMPLES] = source.examples.path
    return {key: home / filled(file, task, language) for key, file in written.items()}


def prompt_files(home: Path) -> list[Path]:
    """The files of a SEA-HELM checkout that hold its prompts."""
    return sorted((home / SEAHELM_TASKS).rglob("config.yaml"))


def filled(text: str, task: TaskFile, language: str) -> str:
    """A path or subset with its language."""
    return text.replace("{language}", language).replace("{code}", task.languages[language].code or language)


def _home(source: TaskSource, homes: Homes) -> Path | None:
    match source:
        case BesideFile():
            return homes.task
        case SeahelmFile():
            return homes.seahelm
        case _:
            return homes.data


def _setting(source: TaskSource) -> str:
    return "seahelm_home" if isinstance(source, SeahelmFile) else "data_home"


def _written(source: TaskSource) -> dict[str, str]:
    """Column, label or `rows` → file, as the task file writes it."""
    match source:
        case LocalFile():
            return {"rows": source.data}
        case LocalLines():
            return dict(source.lines)
        case LocalClasses():
            return dict(source.classes)
        case BesideFile():
            return {"rows": source.path}
        case SeahelmFile():
            return {"rows": source.seahelm}
        case _:
            return {}
