"""All that an evaluation asks: rows of its own, the rows of named tasks, and what has none."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from dudi_kit.console import notice
from dudi_kit.data.example import Example
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.load import load_examples
from dudi_kit.data.sources import cache_only
from dudi_kit.errors import DataError, EnvironmentLack, HubUnreachable, Interrupted
from dudi_kit.evaluate.run import TaskData
from dudi_kit.evaluate.run_named import NamedData
from dudi_kit.evaluate.task_rows import LanguageRows, Wishes, load_rows
from dudi_kit.pipeline.lock import resolved_aloud
from dudi_kit.plan.hub import Reference
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.data import Dataset
from dudi_kit.recipe.schema.evaluation import Evaluation, NamedTask, Task
from dudi_kit.recipe.schema.task import HubTable, TaskFile, TaskSource
from dudi_kit.recipe.task_places import at_revisions, first_there, homes_of, named_task

NOT_REACHED = "the hub can't be reached, and neither evaluation.data_home nor the local cache has the rows"


class EvaluationData(NamedTuple):
    """All that is asked in an evaluation; empty parts are false."""

    tasks: dict[str, TaskData]
    named: dict[str, NamedData]
    held_out: list[Example]


def evaluation_data(recipe: Recipe, ledger: Ledger) -> EvaluationData:
    """The rows of every task, and the held-out rows."""
    tasks = {
        name: TaskData(task, _examples(recipe, {name: task.data}, ledger))
        for name, task in recipe.evaluation.tasks.items()
        if isinstance(task, Task)
    }
    named = named_data(recipe.evaluation, ledger)
    return EvaluationData(tasks, named, _examples(recipe, recipe.data.held_out, ledger))


def _examples(recipe: Recipe, datasets: Mapping[str, Dataset], ledger: Ledger) -> list[Example]:
    read = (
        load_examples(name, dataset, on_bad_row=recipe.data.on_bad_row, ledger=ledger)
        for name, dataset in datasets.items()
    )
    return [example for examples in read for example in examples]


def named_data(evaluation: Evaluation, ledger: Ledger) -> dict[str, NamedData]:
    """The rows of every named task, read once for all models.

    A language without data is said and listed as missing: the others are scored. DataError: a task has no data at all.
    """
    found = read_named(evaluation, ledger)
    tell_missing(found)
    for name, data in found.items():
        if not data.rows:
            raise DataError(f"evaluation.tasks.{name}: no language has rows. {next(iter(data.missing.values()))}")
    return found


def read_named(evaluation: Evaluation, ledger: Ledger) -> dict[str, NamedData]:
    """As `named_data`, and says nothing of what is missing; a task may have no rows.

    That the hub can't be reached is found out once; from then on its local cache is all that is read.
    """
    with ExitStack() as offline:
        hub = _Hub(offline)
        return {
            name: _read(entry, evaluation, ledger, hub)
            for name, entry in evaluation.tasks.items()
            if isinstance(entry, NamedTask)
        }


def tell_missing(found: Mapping[str, NamedData]) -> None:
    """Say what has no rows, each reason once."""
    places: dict[str, dict[str, list[str]]] = {}
    for name, data in found.items():
        for language, reason in data.missing.items():
            places.setdefault(reason, {}).setdefault(name, []).append(language)
    for reason, tasks in places.items():
        named = ", ".join(f"{name} {' '.join(languages)}" for name, languages in tasks.items())
        notice(f"not scored: {named}: {reason}")


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Say how to go on, where the user stops an evaluation."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped. The answers so far are kept in {folder / 'answers'}: the same command goes on from there."
        ) from None


def _read(entry: NamedTask, evaluation: Evaluation, ledger: Ledger, hub: "_Hub") -> NamedData:
    task, homes = named_task(entry), homes_of(evaluation, entry)
    wishes = Wishes(entry.mode, entry.shots, entry.limit, evaluation.seed)
    rows: dict[str, LanguageRows] = {}
    missing: dict[str, str] = {}
    for language in entry.languages or task.languages:
        try:
            exact = hub.at_commit(task, first_there(task, language, homes))
            rows |= load_rows(exact, [language], wishes, homes, ledger)
        except HubUnreachable:
            missing[language] = NOT_REACHED
            hub.leave()
        except (DataError, EnvironmentLack) as error:
            missing[language] = str(error)
    return NamedData(task, entry, rows, missing)


class _Hub:
    """Asked once for the commit of each dataset, and left alone once it can't be reached."""

    def __init__(self, offline: ExitStack) -> None:
        self._offline = offline
        self._commits: dict[Reference, str | None] = {}

    def leave(self) -> None:
        """From now on, only the local cache is read."""
        self._offline.enter_context(cache_only())

    def at_commit(self, task: TaskFile, source: TaskSource) -> TaskFile:
        """The task with the source's dataset at the commit that its revision stands for now, so that it is known what
        was scored. As it is where nobody can tell; then the library may know what its own cache holds."""
        if not isinstance(source, HubTable):
            return task
        reference = Reference("datasets", source.hub, source.revision)
        if reference not in self._commits:
            self._commits[reference] = self._ask(reference)
        commit = self._commits[reference]
        return at_revisions(task, {source.hub: commit}) if commit else task

    def _ask(self, reference: Reference) -> str | None:
        try:
            return resolved_aloud([reference]).commits[reference]
        except HubUnreachable:
            self.leave()
            return None
