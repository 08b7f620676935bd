"""What is to be evaluated where no recipe says it: tasks, languages and manner from the command line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dudi_kit.console import notice
from dudi_kit.errors import UsageError
from dudi_kit.recipe.diagnostics import listed, nearest
from dudi_kit.recipe.schema.evaluation import AnyTask, Evaluation, NamedTask
from dudi_kit.recipe.schema.models import Dtype
from dudi_kit.recipe.schema.task import Mode, Scoring, TaskFile
from dudi_kit.recipe.task_files import is_file_name, load_task, shipped


@dataclass(frozen=True)
class Choice:
    """Options of `dudi-kit evaluate`; None is what a recipe's default would be."""

    tasks: tuple[str, ...] | None = None
    """Names of tasks that ship, or task files; None: all that ship."""

    languages: tuple[str, ...] | None = None
    """None: all of each task."""

    limit: int | None = None
    mode: Mode | None = None
    shots: int | None = None
    scoring: Scoring | None = None
    batch_size: int | None = None
    dtype: Dtype | None = None
    """Of the model's weights."""

    data_home: Path | None = None
    seahelm_home: Path | None = None

    def evaluation(self) -> Evaluation:
        """As a recipe would say it. UsageError: no such task or language, or a task that can't be asked in this way."""
        tasks = _tasks(self.tasks if self.tasks is not None else shipped())
        if self.languages is not None:
            _require_languages(self.languages, tasks)
        entries: dict[str, AnyTask] = {
            name: NamedTask(task=where, languages=languages, **self._given("limit", "mode", "shots", "scoring"))
            for name, (where, task) in tasks.items()
            if (languages := self._languages(name, task)) and self._fits(name, task)
        }
        if not entries:
            raise UsageError("no task is left to be scored by log-probability: none of them has labels.")
        return Evaluation(
            tasks=entries,
            data_home=_absolute(self.data_home),
            seahelm_home=_absolute(self.seahelm_home),
            **self._given("batch_size"),
        )

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _languages(self, name: str, task: TaskFile) -> list[str]:
        """Those of the task that are wanted; all that ship are asked for what they have."""
        if self.languages is None:
            return list(task.languages)
        found = [language for language in self.languages if language in task.languages]
        missing = [language for language in self.languages if language not in found]
        if missing and self.tasks is not None:
            notice(f"not scored: {name} {' '.join(missing)}: the task is there only in {listed(task.languages)}")
        return found

    def _fits(self, name: str, task: TaskFile) -> bool:
        """Log-probability chooses among labels."""
        fits = self.scoring != "logprob" or any(map(task.labels_in, task.languages))
        if not fits and self.tasks is not None:
            raise UsageError(f"--scoring logprob: task {name} has no labels to choose among. Leave it out.")
        return fits


def _tasks(names: Iterable[str]) -> dict[str, tuple[str, TaskFile]]:
    """Name of the task → what names it, and the task."""
    found: dict[str, tuple[str, TaskFile]] = {}
    for name in names:
        where = str(Path(name).absolute()) if is_file_name(name) else name
        if is_file_name(name) and not Path(name).is_file():
            raise UsageError(f"--tasks: no such file: {name}")
        if not is_file_name(name) and name not in shipped():
            raise UsageError(f"--tasks: no task is called {name!r}. {_hint(name, shipped())}")
        task = load_task(where)
        if task.name in found:
            raise UsageError(f"--tasks: {task.name!r} is named twice.")
        found[task.name] = where, task
    return found


def _require_languages(languages: Sequence[str], tasks: dict[str, tuple[str, TaskFile]]) -> None:
    known = dict.fromkeys(language for _, task in tasks.values() for language in task.languages)
    for i, language in enumerate(languages):
        if language not in known:
            raise UsageError(f"--languages: no task is there in {language!r}. {_hint(language, known)}")
        if language in languages[:i]:
            raise UsageError(f"--languages: {language!r} is named twice.")


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = nearest(name, names)
    return f"Did you mean {near!r}?" if near else f"There is {listed(names)}."


def _absolute(path: Path | None) -> str | None:
    if path is None:
        return None
    if not path.is_dir():
        raise UsageError(f"no such folder: {path}")
    return str(path.absolute())
