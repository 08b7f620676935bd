"""The scores of a trained run: of its teacher, and of the student before and after."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dudi_kit.console import err, notice, out
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.load import load_examples
from dudi_kit.errors import RunDirectoryError
from dudi_kit.evaluate.progress import rich_track
from dudi_kit.evaluate.run import TaskData, evaluate_model
from dudi_kit.evaluate.scores import Missing, Scores, load_scores, save_scores
from dudi_kit.evaluate.task_rows import named_rows
from dudi_kit.models.loading import best_device, freeze, load_model
from dudi_kit.plan.chain import Stage
from dudi_kit.plan.claim import differences
from dudi_kit.plan.layout import read_lock, write_json, write_text
from dudi_kit.plan.models import encoder_of, trained
from dudi_kit.plan.schema import ModelSource, Plan, read_plan
from dudi_kit.recipe.publish import resolved_json
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.data import Dataset
from dudi_kit.recipe.schema.evaluation import Subject, Task
from dudi_kit.report.terminal import scores_table

NOBODY: dict[Subject, str] = {
    "teacher": "the recipe has no teacher",
    "before": "the student starts from random weights, without a cold start",
    "after": "there is no trained student",
}
"""Why a model that was to be shown may not exist."""


def require_trained(stage: Stage) -> None:
    """RunDirectoryError where this very recipe has not been trained."""
    if not stage.run.complete():
        raise RunDirectoryError(
            f"{stage.run.path} holds no trained student yet: call `dudi-kit train` or `dudi-kit run` first, with "
            "--resume if it was interrupted."
        )
    if (found := read_lock(stage.run)) != stage.lock:
        raise RunDirectoryError(
            f"{stage.run.path} was trained with other settings or other data (lock {(found or 'unreadable')[:8]}, this "
            f"recipe has {stage.lock[:8]}{differences(stage)}); use the recipe and the overrides that it was trained "
            "with."
        )


def score_models(stage: Stage) -> None:
    """Score every model that the recipe asks for, and say which could not be."""
    planned = read_plan(stage.run)
    ledger = Ledger()
    tasks, held_out = evaluation_data(stage.recipe, ledger)
    unscored = _unscored(stage.recipe, ledger)
    # Scores of other tasks or models must not stand beside the new ones, not even if this is interrupted.
    shutil.rmtree(stage.run.evaluation, ignore_errors=True)
    write_text(stage.run.resolved, resolved_json(stage.recipe))
    if not tasks and not held_out:
        notice("nothing to evaluate: the recipe has neither evaluation.tasks nor data.held_out")
        return
    for who, source in _subjects(stage, planned).items():
        if source is None:
            notice(f"evaluation: nothing to score as '{who}': {NOBODY[who]}")
            continue
        notice(f"evaluating {who}: {source.path}")
        scores = _score(source, who, stage, tasks, held_out)
        scores = replace(scores, missing=[*scores.missing, *unscored])
        save_scores(scores, stage.run.evaluation / f"{who}.json")
    write_json(stage.run.evaluation / "ledger.json", ledger.as_json())


def _score(
    source: ModelSource, who: Subject, stage: Stage, tasks: Mapping[str, TaskData], held_out: list[Any]
) -> Scores:
    role = "teacher" if who == "teacher" else "student"
    model = load_model(
        source.path,
        who=role,
        dtype=source.dtype,
        revision=source.revision,
        gguf_file=source.gguf_file,
        quantization=source.quantization,
        device=best_device(),
    )
    return evaluate_model(
        freeze(model),
        encoder_of(source, who=role),
        tasks=tasks,
        held_out=held_out,
        max_length=stage.recipe.data.max_length,
        batch_size=stage.recipe.evaluation.batch_size,
        track=rich_track(err),
        answers_to=stage.run.evaluation / f"{who}.answers.jsonl",
    )


def _subjects(stage: Stage, planned: Plan) -> dict[Subject, ModelSource | None]:
    """Where each model that is to be shown comes from; None where the recipe has none."""
    sources: dict[Subject, ModelSource | None] = {
        "teacher": planned.teacher,
        "before": planned.start,
        "after": trained(stage.run, "fp32"),
    }
    return {who: sources[who] for who in stage.recipe.evaluation.models}


def evaluation_data(recipe: Recipe, ledger: Ledger) -> tuple[dict[str, TaskData], list[Any]]:
    """The rows of every task, and the held-out rows."""
    tasks = {
        name: TaskData(task, _examples(recipe, {name: task.data}, ledger))
        for name, task in recipe.evaluation.tasks.items()
        if isinstance(task, Task)
    }
    return tasks, _examples(recipe, recipe.data.held_out, ledger)


def _unscored(recipe: Recipe, ledger: Ledger) -> list[Missing]:
    """Tasks that the recipe names by their file: their rows are read, and nothing scores them yet."""
    named = named_rows(recipe.evaluation, ledger)
    return [Missing(name, code, "tasks of a file are not scored yet") for name, rows in named.items() for code in rows]


def _examples(recipe: Recipe, datasets: Mapping[str, Dataset], ledger: Ledger) -> list[Any]:
    read = (
        load_examples(name, dataset, on_bad_row=recipe.data.on_bad_row, ledger=ledger)
        for name, dataset in datasets.items()
    )
    return [example for examples in read for example in examples]


def show_scores(stage: Stage) -> None:
    """The table in the terminal."""
    files = {who: stage.run.evaluation / f"{who}.json" for who in ("teacher", "before", "after")}
    scores = {who: load_scores(file) for who, file in files.items() if file.exists()}
    if scores:
        out.print(scores_table(scores))  # type: ignore[arg-type]
