"""Rules about `evaluation.during_training`: what is scored while the student trains, and which score picks the best."""

from collections.abc import Iterator

from dudi_kit.recipe.checks.complaint import Complaint, Rule
from dudi_kit.recipe.derive import best_score, tasks_during_training
from dudi_kit.recipe.diagnostics import InvalidRecipeError, Path, listed, nearest
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.evaluation import BITS, DuringTraining, NamedTask
from dudi_kit.recipe.task_files import load_task

PLACE = ("evaluation", "during_training")
TASKS = ("evaluation", "tasks")
HELD_OUT = ("data", "held_out")


def _settings(recipe: Recipe) -> DuringTraining | None:
    return recipe.evaluation.during_training


def its_tasks_are_there(recipe: Recipe) -> Iterator[Complaint]:
    """Names of `evaluation.tasks`, each once."""
    during, known = _settings(recipe), list(recipe.evaluation.tasks)
    names = during.tasks or [] if during else []
    for i, name in enumerate(names):
        where: Path = (*PLACE, "tasks", i)
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else _offered(known)
            yield Complaint(where, "not-scored", f"evaluation.tasks has no {name!r}", hint, (TASKS,))
        elif name in names[:i]:
            yield Complaint(where, "duplicate", f"{name} named twice", "name each once")


def something_is_scored(recipe: Recipe) -> Iterator[Complaint]:
    """Without tasks and held-out text there is nothing to score."""
    if _settings(recipe) and not tasks_during_training(recipe) and not recipe.data.held_out:
        message = "nothing would be scored: there is no held-out text, and no task"
        hint = "add data.held_out or evaluation.tasks, or remove it"
        yield Complaint(PLACE, "no-effect", message, hint, (TASKS, HELD_OUT, (*PLACE, "tasks")), at_key=True)


def the_best_is_measured(recipe: Recipe) -> Iterator[Complaint]:
    """The score that picks the best step is one of those that are taken, and where there are several it is named."""
    during, tasks = _settings(recipe), list(tasks_during_training(recipe))
    measured = [*([BITS] if recipe.data.held_out else []), *tasks]
    needs: tuple[Path, ...] = (TASKS, HELD_OUT, (*PLACE, "tasks"))
    if during is None or not measured:
        return
    if during.best is None and best_score(recipe) is None:
        message = "without held-out text, which of the tasks picks the best step has to be said"
        yield Complaint(PLACE, "needs-best", message, f"add best: {listed(tasks)}", needs, at_key=True)
    elif during.best is not None and during.best not in measured:
        message, hint = _not_measured(during.best, measured, list(recipe.evaluation.tasks))
        yield Complaint((*PLACE, "best"), "not-scored", message, hint, needs)


def _not_measured(best: str, measured: list[str], known: list[str]) -> tuple[str, str]:
    """What is wrong with a score that is not taken, and the way out. known: all of `evaluation.tasks`."""
    offered = f"measured are {', '.join(measured)}"
    if best == BITS:
        return "there is no held-out text", offered
    if best in known:
        hint = f"add it to its tasks, or name another: {offered}"
        return f"{best!r} is not among the tasks that are scored meanwhile", hint
    near = nearest(best, [*measured, *known])
    return f"no score is called {best!r}", f"did you mean {near!r}?" if near else offered


def every_label_has_a_row(recipe: Recipe) -> Iterator[Complaint]:
    """A draw without some of the labels can't tell a student that knows them from one that does not."""
    during = _settings(recipe)
    for name, use in tasks_during_training(recipe).items():
        labels = _most_labels(use) if isinstance(use, NamedTask) else 0
        if during and during.limit < labels:
            message = f"{during.limit} rows of a language can't show the {labels} labels of {name}"
            hint = f"set it to {labels} or more, or leave {name} out of its tasks"
            yield Complaint((*PLACE, "limit"), "too-few", message, hint, ((*TASKS, name),))


def _most_labels(use: NamedTask) -> int:
    """Of any language that is asked; 0 for a task without labels, or one that can't be read."""
    try:
        task = load_task(use.task)
    except (InvalidRecipeError, KeyError):
        return 0
    languages = [code for code in use.languages or task.languages if code in task.languages]
    return max((len(task.labels_in(code)) for code in languages), default=0) if task.has_labels else 0


def _offered(known: list[str]) -> str:
    return f"there are {', '.join(known)}" if known else "it has none"


RULES: tuple[Rule, ...] = (its_tasks_are_there, something_is_scored, the_best_is_measured, every_label_has_a_row)
