"""`dudi-kit tasks`: what can be evaluated by name, with the sources and licences of the rows."""

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from dudi_kit import console
from dudi_kit.cli.app import Panel, command

if TYPE_CHECKING:
    from dudi_kit.recipe.schema.task import TaskFile


@command("tasks", Panel.RECIPES)
def tasks(
    name: Annotated[
        str | None, typer.Argument(metavar="TASK", help="One task, or a task file: all about it.", show_default=False)
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", "-l", metavar="CODE", help="Only tasks in this language, as in th.")
    ] = None,
) -> None:
    """List the tasks that recipes may name in evaluation.tasks, by competency; or print one with its sources.

    What is local lies below evaluation.data_home; the first source that is there is taken.
    """
    from dudi_kit.recipe.task_files import load_task, shipped

    if name is not None:
        _print_one(load_task(_known(name)), language)
        return
    found = [load_task(each) for each in shipped()]
    _print_all([task for task in found if language is None or language in task.languages])


def _known(name: str) -> str:
    from dudi_kit.recipe.diagnostics import nearest
    from dudi_kit.recipe.task_files import is_file_name, shipped

    if not is_file_name(name) and name not in shipped():
        near = nearest(name, shipped())
        hint = f"; did you mean {near!r}?" if near else "; `dudi-kit tasks` lists them"
        raise typer.BadParameter(f"no task is called {name!r}{hint}", param_hint="TASK")
    return name


def _print_all(found: "list[TaskFile]") -> None:
    from dudi_kit.cli import prints
    from dudi_kit.recipe.schema.task import Competency

    for competency in get_args(Competency):
        rows = [[t.name, t.metric, " ".join(t.languages)] for t in found if t.competency == competency]
        if rows:
            console.say(competency.replace("_", " "), style="cyan")
            prints.table(rows, ["bold", "dim", ""])


def _print_one(task: "TaskFile", language: str | None) -> None:
    from dudi_kit.cli import prints

    console.say(task.name, style="bold")
    facts = {
        "": task.description,
        "competency": task.competency.replace("_", " "),
        "metric": task.metric,
        "SEA-HELM": task.seahelm or "",
        "licence": task.licence,
        "shots": f"instruct {task.shots.instruct}, base {task.shots.base}",
    }
    prints.table([[key, text] for key, text in facts.items() if text], ["dim", ""])
    rows = []
    for code in task.languages if language is None else [language] if language in task.languages else []:
        labels = task.labels_in(code)
        chance = f"chance 1/{len(labels)}" if labels and task.has_labels else ""
        for i, source in enumerate(task.sources_in(code)):
            where = _where(source.model_dump(), code, task.languages[code].code or code)
            rows.append(
                [code if i == 0 else "", chance if i == 0 else "", f"{where} ({source.licence or task.licence})"]
            )
    prints.table(rows, ["bold", "dim", ""])


def _where(source: dict[str, object], language: str, code: str) -> str:
    """A source in a few words: the key that tells its kind, and what stands there."""
    if "hub" in source:
        subset = f"/{source['subset']}" if source["subset"] else ""
        text = f"hub:{source['hub']}{subset}@{source['revision']} {source['split']}"
    else:
        kind = next(key for key in ("data", "lines", "classes", "path", "seahelm", "builtin") if key in source)
        value = source[kind]
        text = f"{kind}: {' + '.join(map(str, value.values())) if isinstance(value, dict) else value}"
    return text.replace("{language}", language).replace("{code}", code)
