"""`dudi-kit evaluate`: a trained run, a model folder, or answers that were given elsewhere."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dudi_kit.cli.app import Panel, Settings, command
from dudi_kit.cli.reference import is_reference
from dudi_kit.cli.runs import FailOnContamination, Frozen, Lock, loaded_recipe, lock_file, stations

if TYPE_CHECKING:
    from dudi_kit.pipeline.choice import Choice

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="TARGET", help="A recipe that was trained, or the folder (or GGUF file) of a model.", show_default=False
    ),
]
Given = Annotated[
    Path | None,
    typer.Option(
        "--predictions", metavar="DIR", help="Score answers instead: TASK.LANGUAGE.jsonl with id and response."
    ),
]
Tasks = Annotated[
    str | None, typer.Option("--tasks", metavar="A,B", help="Of a folder: these tasks, by name or file; default: all.")
]
Languages = Annotated[
    str | None, typer.Option("--languages", metavar="id,th", help="Of a folder: in these languages; default: all.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Of a folder: at most N rows of each language.")
]
Mode = Annotated[
    Literal["instruct", "base"] | None,
    typer.Option("--mode", help="Of a folder: asked in its chat template (the default), or to complete a text."),
]
Shots = Annotated[
    int | None,
    typer.Option("--shots", metavar="N", min=0, max=100, help="Of a folder: worked examples; default: the task's."),
]
Scoring = Annotated[
    Literal["generation", "logprob"] | None,
    typer.Option("--scoring", help="Of a folder: answers are written (the default), or the likeliest label is one."),
]
DataHome = Annotated[
    Path | None, typer.Option("--data-home", metavar="DIR", help="Of a folder: local copies of benchmarks.")
]
SeahelmHome = Annotated[
    Path | None, typer.Option("--seahelm-home", metavar="DIR", help="Of a folder: your checkout of SEA-HELM.")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", min=1, help="Of a folder: rows asked at a time.")
]
Precision = Annotated[
    Literal["fp32", "bf16"] | None, typer.Option("--dtype", help="Of a folder: precision of the weights; fp32.")
]
Harness = Annotated[
    str | None, typer.Option("--lm-eval", metavar="A,B", help="Run these tasks of lm-eval on the student instead.")
]
HarnessTasks = Annotated[
    Path | None, typer.Option("--lm-eval-tasks", metavar="DIR", help="Task files of your own for --lm-eval.")
]
Export = Annotated[
    Path | None,
    typer.Option("--export-lm-eval", metavar="DIR", help="Write our tasks as lm-eval's instead; needs no TARGET."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Of a recipe: folder of the run directories. Else: where evaluation/ is written.",
    ),
]

IN_A_RECIPE = {
    "--tasks": "evaluation.tasks",
    "--languages": "evaluation.tasks.NAME.languages",
    "--limit": "evaluation.tasks.NAME.limit",
    "--mode": "evaluation.tasks.NAME.mode",
    "--shots": "evaluation.tasks.NAME.shots",
    "--scoring": "evaluation.tasks.NAME.scoring",
    "--data-home": "evaluation.data_home",
    "--seahelm-home": "evaluation.seahelm_home",
    "--batch-size": "evaluation.batch_size",
}
"""Option of a folder → where a recipe says the same."""

OF_A_MODEL = {"--batch-size", "--dtype"}
"""Options that mean nothing where no model is asked."""

FOR_HARNESS = ("--limit", "--mode", "--shots", "--batch-size")
"""Options that lm-eval has too."""


@command("evaluate", Panel.RUNS)
def evaluate(
    target: Target = None,
    settings: Settings = None,
    predictions: Given = None,
    tasks: Tasks = None,
    languages: Languages = None,
    limit: Limit = None,
    mode: Mode = None,
    shots: Shots = None,
    scoring: Scoring = None,
    data_home: DataHome = None,
    seahelm_home: SeahelmHome = None,
    batch_size: BatchSize = None,
    dtype: Precision = None,
    lm_eval: Harness = None,
    lm_eval_tasks: HarnessTasks = None,
    export_lm_eval: Export = None,
    output: Output = None,
    fail_on_contamination: FailOnContamination = False,
    frozen: Frozen = False,
    lock: Lock = None,
) -> None:
    """Score a trained student beside its teacher and its cold start, or any model on the tasks that ship.

    Stopped and called again, it goes on where it was. `dudi-kit compare` sets the scores side by side.
    """
    options: dict[str, object] = {
        "--tasks": tasks,
        "--languages": languages,
        "--limit": limit,
        "--mode": mode,
        "--shots": shots,
        "--scoring": scoring,
        "--data-home": data_home,
        "--seahelm-home": seahelm_home,
        "--batch-size": batch_size,
        "--dtype": dtype,
    }
    if sum(each is not None for each in (target, predictions, export_lm_eval)) != 1:
        raise typer.BadParameter(
            "name a recipe or a model folder, or --predictions DIR, or --export-lm-eval DIR: one of them",
            param_hint="TARGET",
        )
    if lm_eval is None and lm_eval_tasks is not None:
        raise typer.BadParameter("is for --lm-eval", param_hint="--lm-eval-tasks")
    folder = is_folder(target)
    of_recipe: dict[str, object] = {"--set": settings, "--frozen": frozen or None, "--lock": lock}
    contamination: dict[str, object] = {"--fail-on-contamination": fail_on_contamination or None}
    if lm_eval is not None:
        allowed = [*FOR_HARNESS, "--dtype"] if folder else FOR_HARNESS
        _refuse(options | contamination, allowed, "is not for --lm-eval")
    elif target is not None and not folder:
        _refuse(options, (), f"is for a model folder, and {target} is a recipe")
    elif predictions is not None:
        _refuse(options, options.keys() - OF_A_MODEL - {"--scoring"}, "is not for answers that were given")
    elif export_lm_eval is not None:
        _refuse(options, options.keys() - OF_A_MODEL, "is not for --export-lm-eval")
    if target is None or folder:
        _refuse(of_recipe | contamination, (), "is for a recipe, and this is none")
    if lm_eval is not None:
        parts = _parts(lm_eval, "--lm-eval")
        _harness(target, settings, parts, lm_eval_tasks, options, output, frozen=frozen, lock=lock)
    elif target is not None and not folder:
        loaded = loaded_recipe(target, settings)
        held_to = lock_file(target, lock, frozen=frozen)
        stations().evaluate(loaded, output=output, lock=held_to, fail_on_contamination=fail_on_contamination)
    else:
        _without_recipe(target, predictions, export_lm_eval, _choice(options), output)


def _refuse(options: Mapping[str, object], allowed: Collection[str], message: str) -> None:
    """A usage error for the first option that was given and is not allowed."""
    for option, value in options.items():
        if value is not None and option not in allowed:
            where = f": there it is {IN_A_RECIPE[option]}" if "recipe" in message and option in IN_A_RECIPE else ""
            raise typer.BadParameter(f"{message}{where}", param_hint=option)


def is_folder(target: str | None) -> bool:
    """Whether a target is a model, not a recipe."""
    return target is not None and not is_reference(target) and (Path(target).is_dir() or target.endswith(".gguf"))


def _without_recipe(
    target: str | None, predictions: Path | None, export: Path | None, choice: "Choice", output: Path | None
) -> None:
    choice.evaluation()  # a mistake is told before torch is imported
    if predictions is not None and not predictions.is_dir():
        raise typer.BadParameter(f"no such folder: {predictions}", param_hint="--predictions")
    stations()  # told to be quiet
    from dudi_kit.pipeline import bridge, folders

    if export is not None:
        bridge.export_tasks(choice, export)
    elif predictions is not None:
        folders.evaluate_predictions(predictions, choice, output)
    else:
        folders.evaluate_folder(Path(str(target)), choice, output)


def _harness(
    target: str | None,
    settings: list[str] | None,
    tasks: tuple[str, ...],
    folder: Path | None,
    options: dict[str, object],
    output: Path | None,
    *,
    frozen: bool,
    lock: Path | None,
) -> None:
    if target is None:
        raise typer.BadParameter("name the recipe or the model folder that lm-eval is to ask", param_hint="TARGET")
    loaded = None if is_folder(target) else loaded_recipe(target, settings)
    stages = stations()
    from dudi_kit.pipeline import folders
    from dudi_kit.pipeline.bridge import HarnessWish, ask_harness

    choice = _choice(options)
    wish = HarnessWish(
        tasks,
        folder,
        choice.mode or "instruct",
        choice.shots,
        choice.limit,
        choice.batch_size or HarnessWish.batch_size,
    )
    if loaded is None:
        source, run = folders.target_of(Path(target), choice, output)
    else:
        source, run = stages.student(loaded, output=output, lock=lock_file(target, lock, frozen=frozen))
    ask_harness(source, wish, run)


def _parts(text: str, option: str) -> tuple[str, ...]:
    found = tuple(part for each in text.split(",") if (part := each.strip()))
    if not found:
        raise typer.BadParameter("names nothing", param_hint=option)
    return found


def _choice(options: dict[str, object]) -> "Choice":
    from dudi_kit.pipeline.choice import Choice

    given = {name.removeprefix("--").replace("-", "_"): value for name, value in options.items()}
    for name in ("tasks", "languages"):
        if isinstance(text := given[name], str):
            given[name] = _parts(text, f"--{name}")
    return Choice(**given)  # type: ignore[arg-type]
