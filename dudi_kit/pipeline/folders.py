"""Scores of a model folder, or of answers that were given elsewhere: an evaluation without a recipe."""

import re
from collections.abc import Mapping
from pathlib import Path

from dudi_kit.console import err, notice, out, say
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import DataError, ModelError, RunDirectoryError
from dudi_kit.evaluate.predictions import Predictions
from dudi_kit.evaluate.progress import rich_track
from dudi_kit.evaluate.run_named import Asked, NamedData, Outcome, evaluate_named, named_scores, score_named
from dudi_kit.evaluate.scores import save_answers, save_scores
from dudi_kit.pipeline.benchmarks import read_named, resumable, tell_missing
from dudi_kit.pipeline.choice import Choice
from dudi_kit.pipeline.weights import loaded, weights_of
from dudi_kit.plan.layout import RunDir, write_json
from dudi_kit.plan.models import context_of, encoder_of
from dudi_kit.plan.schema import ModelSource
from dudi_kit.recipe.schema.evaluation import Evaluation
from dudi_kit.recipe.schema.models import Dtype
from dudi_kit.recipe.schema.task import Mode
from dudi_kit.report.standings import standings_table

OUTPUT = Path("outputs") / "evaluated"

NO_BOUND = 1 << 30
"""Context in tokens of a model whose configuration names none."""

TARGET = "target.json"
"""What was scored and how, beside the scores of what is no run."""


def evaluate_folder(target: Path, choice: Choice, output: Path | None) -> None:
    """Score the model of a folder, or of a GGUF file, on named tasks; save and print the scores."""
    evaluation = choice.evaluation()
    source, folder = target_of(target, choice, output)
    ledger = Ledger()
    data = _read(evaluation, ledger, every=choice.tasks is None)
    encoder = encoder_of(source, who="student")
    weights = weights_of(source)
    notice(f"evaluating {target}")
    model = loaded(source, who="student")
    asked = Asked(
        model,
        encoder,
        context_of(model.config.get_text_config()) or NO_BOUND,
        evaluation.batch_size,
        folder.evaluation / "answers" / "after",
        weights,
    )
    with resumable(folder.evaluation):
        outcome = evaluate_named(data, asked, track=rich_track(err), ledger=ledger)
    _keep(outcome, data, ledger, folder, {"target": str(target.absolute()), "weights": weights}, evaluation)


def evaluate_predictions(given: Path, choice: Choice, output: Path | None) -> None:
    """Score answers that were given elsewhere; save and print the scores."""
    predictions = Predictions(given)
    evaluation = predictions.asked_for(choice.evaluation(), every=choice.tasks is None)
    folder, ledger = output_folder(given, output), Ledger()
    data = _read(evaluation, ledger, every=False)
    outcome = score_named(data, predictions.said)
    _keep(outcome, data, ledger, folder, {"target": str(given.absolute())}, evaluation)


def target_of(target: Path, choice: Choice, output: Path | None) -> tuple[ModelSource, RunDir]:
    """The model that is asked, and where its scores go."""
    return source_of(target, choice.mode or "instruct", choice.dtype or "fp32"), output_folder(target, output)


def source_of(target: Path, mode: Mode, dtype: Dtype) -> ModelSource:
    """Where the model of a folder or a GGUF file comes from. ModelError: it holds no model that can be asked so."""
    gguf = target.name if target.suffix == ".gguf" else None
    folder = (target.parent if gguf else target).absolute()
    if gguf is None and not (folder / "config.json").is_file():
        run = RunDir(folder)
        hint = f"It is a run: name {run.final} or its recipe." if run.resolved.exists() else "Name a folder with one."
        raise ModelError(f"{target} is no model folder: it has no config.json. {hint}")
    source = ModelSource(path=str(folder), dtype=dtype, gguf_file=gguf)
    if load_tokenizer(source.path, gguf_file=gguf).chat_template:
        return source
    if mode == "instruct":
        raise ModelError(
            f"{target}: its tokenizer has no chat template, so it can't be asked as a model that chats. Ask it to "
            "complete texts: --mode base."
        )
    return source.model_copy(update={"chat_template": "plain"})


def output_folder(target: Path, output: Path | None) -> RunDir:
    """Where the scores go: a folder of their own, or the one that the user names."""
    if output is None:
        place = target.absolute()
        place = place.with_suffix("") if place.suffix == ".gguf" else place
        parts = [part for part in place.parts if part not in (place.anchor, "checkpoints")]
        of_run = parts[-1] == "final" or re.fullmatch(r"step-\d+", parts[-1])
        output = OUTPUT / "-".join(parts[-2:] if of_run else parts[-1:])
    if RunDir(output).resolved.exists():
        raise RunDirectoryError(
            f"{output} is the directory of a run, whose scores are of its own recipe. Choose another --output."
        )
    return RunDir(output)


def _read(evaluation: Evaluation, ledger: Ledger, *, every: bool) -> dict[str, NamedData]:
    """The rows of the tasks. every: all that ship were asked for, so that those without any rows are left out."""
    with err.status("reading tasks"):
        data = read_named(evaluation, ledger)
    tell_missing(data)
    empty = [name for name, task in data.items() if not task.rows]
    if empty and (not every or len(empty) == len(data)):
        raise DataError(
            f"no rows at all: {', '.join(empty)}. {next(iter(data[empty[0]].missing.values()))}. --data-home names "
            "the folder of your local copies."
        )
    return data


def _keep(
    outcome: Outcome,
    data: Mapping[str, NamedData],
    ledger: Ledger,
    folder: RunDir,
    target: Mapping[str, str],
    evaluation: Evaluation,
) -> None:
    """Save and print; what has no rows was told before."""
    scores = named_scores(outcome, ledger)
    write_json(folder.evaluation / TARGET, {**target, "evaluation": evaluation.model_dump(mode="json")})
    save_answers(outcome.answers, folder.evaluation / "after.answers.jsonl")
    save_scores(scores, folder.evaluation / "after.json")
    told = {(name, language) for name, task in data.items() for language in task.missing}
    out.print(standings_table(scores, [each for each in scores.missing if (each.task, each.language) not in told]))
    say(f"scores and answers: {folder.evaluation}")
