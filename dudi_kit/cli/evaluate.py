"""`dudi-kit evaluate`: a trained run, a model folder, or answers that were given elsewhere."""

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
    if (target is None) == (predictions is None):
        raise typer.BadParameter(
            "name a recipe or a model folder, or --predictions DIR: one of them", param_hint="TARGET"
        )
    if target is not None and not is_folder(target):
        for option, value in options.items():
            if value is not None:
                hint = f", where this is {IN_A_RECIPE[option]}" if option in IN_A_RECIPE else ""
                raise typer.BadParameter(f"is for a model folder, and {target} is a recipe{hint}", param_hint=option)
        loaded = loaded_recipe(target, settings)
        stations().evaluate(loaded, output=output, lock=lock_file(target, lock, frozen=frozen))
        return
    for option, given in (("--set", settings), ("--frozen", frozen), ("--lock", lock)):
        if given:
            raise typer.BadParameter("is for a recipe, and this is none", param_hint=option)
    _without_recipe(target, predictions, _choice(options), output)


def is_folder(target: str) -> bool:
    """Whether a target is a model, not a recipe."""
    return not is_reference(target) and (Path(target).is_dir() or target.endswith(".gguf"))


def _without_recipe(target: str | None, predictions: Path | None, choice: "Choice", output: Path | None) -> None:
    choice.evaluation()  # a mistake is told before torch is imported
    if predictions is not None and not predictions.is_dir():
        raise typer.BadParameter(f"no such folder: {predictions}", param_hint="--predictions")
    stations()  # told to be quiet
    from dudi_kit.pipeline import folders

    if predictions is not None:
        folders.evaluate_predictions(predictions, choice, output)
    else:
        folders.evaluate_folder(Path(str(target)), choice, output)


def _choice(options: dict[str, object]) -> "Choice":
    from dudi_kit.pipeline.choice import Choice

    given = {name.removeprefix("--").replace("-", "_"): value for name, value in options.items()}
    for name in ("tasks", "languages"):
        if isinstance(text := given[name], str):
            given[name] = tuple(part for each in text.split(",") if (part := each.strip()))
            if not given[name]:
                raise typer.BadParameter("names nothing", param_hint=f"--{name}")
    return Choice(**given)  # type: ignore[arg-type]
