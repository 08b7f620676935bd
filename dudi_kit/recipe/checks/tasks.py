"""Rules about `evaluation.tasks` that name a task: it must be there, and able to do what the recipe asks of it."""

from collections.abc import Iterator

from dudi_kit.recipe.checks.complaint import Complaint, Rule
from dudi_kit.recipe.diagnostics import InvalidRecipeError, Path, listed, nearest
from dudi_kit.recipe.paths import is_plain_file
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.evaluation import NamedTask
from dudi_kit.recipe.schema.task import BesideFile, BuiltinRequests, HubTable, SeahelmFile, TaskFile, TaskSource
from dudi_kit.recipe.task_files import hub_datasets, is_file_name, load_task, shipped


def _named(recipe: Recipe) -> Iterator[tuple[Path, NamedTask]]:
    for name, task in recipe.evaluation.tasks.items():
        if isinstance(task, NamedTask):
            yield ("evaluation", "tasks", name), task


def _loaded(recipe: Recipe) -> Iterator[tuple[Path, NamedTask, TaskFile]]:
    """Those whose file can be read; `load` tells what is wrong with the others."""
    for path, use in _named(recipe):
        try:
            yield path, use, load_task(use.task)
        except (InvalidRecipeError, KeyError):
            continue


def named_tasks_exist(recipe: Recipe) -> Iterator[Complaint]:
    """A name of a task that ships, or a file."""
    for path, use in _named(recipe):
        if is_file_name(use.task) and not is_plain_file(use.task):
            hint = "paths are relative to the file that names them"
            yield Complaint((*path, "task"), "missing-file", f"no such file: {use.task}", hint)
        elif not is_file_name(use.task) and use.task not in shipped():
            near = nearest(use.task, shipped())
            hint = (
                f"did you mean {near!r}?" if near else "`dudi-kit tasks` lists them; a file of your own ends in .yaml"
            )
            yield Complaint((*path, "task"), "unknown-task", f"no task is called {use.task!r}", hint)


def languages_are_of_the_task(recipe: Recipe) -> Iterator[Complaint]:
    """A language that the task has no prompt for can't be evaluated."""
    for path, use, task in _loaded(recipe):
        for i, language in enumerate(use.languages or ()):
            where = (*path, "languages", i)
            if language not in task.languages:
                message = f"{task.name} is not there in {language}, only in {listed(task.languages)}"
                yield Complaint(where, "needs-data", message, "remove it", ((*path, "task"),))
            elif language in (use.languages or ())[:i]:
                yield Complaint(where, "duplicate", f"{language} named twice", "name each once")


def named_tasks_can_be_asked(recipe: Recipe) -> Iterator[Complaint]:
    """Examples, labels and rows that the recipe's wishes rest on."""
    for path, use, task in _loaded(recipe):
        needs: tuple[Path, ...] = ((*path, "task"), (*path, "languages"))
        languages = [code for code in use.languages or task.languages if code in task.languages]
        if use.scoring == "logprob" and not any(map(task.labels_in, languages)):
            message = f"{task.name} has no labels to compare by their likelihood"
            yield Complaint((*path, "scoring"), "needs-labels", message, "use 'scoring: generation'", needs)
        without = [c for c in languages if any(source.examples is None for source in task.sources_in(c))]
        if use.shots and without:
            message = f"{task.name} has no worked examples in {listed(without)}"
            yield Complaint((*path, "shots"), "needs-examples", message, "write 'shots: 0'", needs)
        lacking = [c for c in languages if not any(_reachable(recipe, source) for source in task.sources_in(c))]
        if lacking:
            hint = "say where it is: evaluation.data_home, or evaluation.seahelm_home"
            message = f"the rows of {task.name} in {', '.join(lacking)} are only in local files, and no folder is named"
            homes: tuple[Path, ...] = (("evaluation", "data_home"), ("evaluation", "seahelm_home"))
            yield Complaint(path, "needs-data", message, hint, (*needs, *homes), at_key=True)


def revisions_are_of_the_tasks_datasets(recipe: Recipe) -> Iterator[Complaint]:
    """A revision of a dataset that the task does not read would pin nothing."""
    for path, use, task in _loaded(recipe):
        named = hub_datasets(task)
        for dataset in use.revisions:
            if dataset not in named:
                near = nearest(dataset, named)
                hint = f"did you mean {near!r}?" if near else f"there is {listed(named)}" if named else "remove it"
                message = f"{task.name} reads no dataset {dataset!r}"
                where = (*path, "revisions", dataset)
                yield Complaint(where, "needs-data", message, hint, ((*path, "task"),), at_key=True)


def _reachable(recipe: Recipe, source: TaskSource) -> bool:
    if isinstance(source, HubTable | BuiltinRequests | BesideFile):
        return True
    home = recipe.evaluation.seahelm_home if isinstance(source, SeahelmFile) else recipe.evaluation.data_home
    return home is not None


RULES: tuple[Rule, ...] = (
    named_tasks_exist,
    languages_are_of_the_task,
    named_tasks_can_be_asked,
    revisions_are_of_the_tasks_datasets,
)
