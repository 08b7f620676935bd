"""The scores of a trained run: of its teacher, and of the student before and after."""

from pathlib import Path

from dudi_kit.console import err, notice, out
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import RunDirectoryError
from dudi_kit.evaluate.contamination import FILE as CONTAMINATION
from dudi_kit.evaluate.contamination import save_contamination
from dudi_kit.evaluate.harness_scores import RESULTS
from dudi_kit.evaluate.progress import rich_track
from dudi_kit.evaluate.run import evaluate_model
from dudi_kit.evaluate.scores import Scores, load_scores, save_scores
from dudi_kit.pipeline.benchmarks import EvaluationData, evaluation_data, resumable
from dudi_kit.pipeline.contamination import check_contamination
from dudi_kit.pipeline.weights import loaded, weights_of
from dudi_kit.plan.chain import Stage
from dudi_kit.plan.claim import differences
from dudi_kit.plan.layout import read_lock, write_json, write_text
from dudi_kit.plan.models import encoder_of, trained
from dudi_kit.plan.schema import ModelSource, Plan, read_plan
from dudi_kit.recipe.publish import resolved_json
from dudi_kit.recipe.schema.evaluation import Subject
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


def score_models(stage: Stage, *, fail_on_contamination: bool = False) -> None:
    """Score every model that the recipe asks for, and say which could not be.

    DataError where the training text holds evaluation items, if that is to fail.
    """
    planned = read_plan(stage.run)
    ledger = Ledger()
    data = evaluation_data(stage.recipe, ledger)
    _forget_scores(stage.run.evaluation)
    write_text(stage.run.resolved, resolved_json(stage.recipe))
    if not any(data):
        notice("nothing to evaluate: the recipe has neither evaluation.tasks nor data.held_out")
        return
    overlap = check_contamination(stage, data, fail=fail_on_contamination)
    for who, source in _subjects(stage, planned).items():
        if source is None:
            notice(f"evaluation: nothing to score as '{who}': {NOBODY[who]}")
            continue
        notice(f"evaluating {who}: {source.path}")
        with resumable(stage.run.evaluation):
            scores = _score(source, who, stage, data)
        save_scores(scores, stage.run.evaluation / f"{who}.json")
    save_contamination(overlap, stage.run.evaluation / CONTAMINATION)
    write_json(stage.run.evaluation / "ledger.json", ledger.as_json())


def _forget_scores(folder: Path) -> None:
    """Scores of other tasks or models must not stand beside the new ones, not even if this is interrupted. Answers to
    named tasks are kept: they are known by their model and prompt."""
    for old in folder.glob("*.json*"):
        if old.name != RESULTS:  # of lm-eval, on the same student
            old.unlink()


def _score(source: ModelSource, who: Subject, stage: Stage, data: EvaluationData) -> Scores:
    role = "teacher" if who == "teacher" else "student"
    model = loaded(source, who=role)
    return evaluate_model(
        model,
        encoder_of(source, who=role),
        tasks=data.tasks,
        held_out=data.held_out,
        named=data.named,
        weights=weights_of(source),
        max_length=stage.recipe.data.max_length,
        batch_size=stage.recipe.evaluation.batch_size,
        track=rich_track(err),
        folder=stage.run.evaluation,
        who=who,
    )


def _subjects(stage: Stage, planned: Plan) -> dict[Subject, ModelSource | None]:
    """Where each model that is to be shown comes from; None where the recipe has none."""
    sources: dict[Subject, ModelSource | None] = {
        "teacher": planned.teacher,
        "before": planned.start,
        "after": trained(stage.run, "fp32"),
    }
    return {who: sources[who] for who in stage.recipe.evaluation.models}


def show_scores(stage: Stage) -> None:
    """The table in the terminal."""
    files = {who: stage.run.evaluation / f"{who}.json" for who in ("teacher", "before", "after")}
    scores = {who: load_scores(file) for who, file in files.items() if file.exists()}
    if scores:
        out.print(scores_table(scores))  # type: ignore[arg-type]
