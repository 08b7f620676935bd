"""The bridge to lm-evaluation-harness: its tasks on our student, with the arguments that fit how it was trained.

What goes wrong by hand: the chat template left off an instruct model (or put on a base one), a beginning-of-sequence
token doubled, weights loaded in another precision, prompts cut to a default length, remote code allowed. Here the model
and the tokenizer that were trained are handed over as they are.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi_kit.errors import EnvironmentLack, UsageError
from dudi_kit.evaluate.harness_scores import HarnessScore, Mode

NOT_SCORES = frozenset({"alias", "name", "sample_len", "sample_count"})


class Found(NamedTuple):
    """What lm-eval measured."""

    version: str
    scores: list[HarnessScore]


def run_harness(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    *,
    mode: Mode,
    folder: Path | None = None,
    shots: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
) -> Found:
    """Run tasks of lm-eval, by name, on a model in memory.

    folder: task files of the user's own, looked at before those that lm-eval brings; without it only the latter.
    EnvironmentLack: lm-eval is not installed, or a task's data can't be had. UsageError: no such task.
    """
    lm_eval = _installed()
    manager = _manager(lm_eval.tasks.TaskManager, tasks, folder)
    wrapped = lm_eval.models.huggingface.HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        max_length=getattr(model.config.get_text_config(), "max_position_embeddings", None),
        # The chat template writes its own; otherwise the tokenizer's habit, as in training.
        add_bos_token=False if mode == "instruct" else None,
    )
    try:
        found = lm_eval.simple_evaluate(
            model=wrapped,
            tasks=list(tasks),
            num_fewshot=shots,
            batch_size=batch_size,
            limit=limit,
            apply_chat_template=mode == "instruct",
            task_manager=manager,
            log_samples=False,
        )
    except (OSError, ValueError) as error:  # what datasets raises where the hub is out of reach, or a file is missing
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EnvironmentLack(
            f"lm-eval can't run {', '.join(tasks)}: {first}. Its data comes from the hub, or from the task's own files."
        ) from error
    return Found(lm_eval.__version__, _scores(found))


def _installed() -> Any:
    try:
        import lm_eval
        import lm_eval.models.huggingface
        import lm_eval.tasks
    except ImportError as error:
        raise EnvironmentLack(
            f"--lm-eval needs lm-eval, which can't be used here: {error}. `pip install 'dudi-kit[lm-eval]'` brings it."
        ) from error
    return lm_eval


def _manager(task_manager: Any, tasks: Sequence[str], folder: Path | None) -> Any:
    """What knows the tasks; the thousands that lm-eval brings are read only where one of them is asked for."""
    own = task_manager(include_path=str(folder), include_defaults=False) if folder else None
    if own is not None and set(tasks) <= set(own.all_tasks):
        return own
    every = task_manager(include_path=str(folder) if folder else None)
    _require_tasks(tasks, every.all_tasks)
    return every


def _require_tasks(asked: Sequence[str], known: Sequence[str]) -> None:
    for task in asked:
        if task not in known:
            near = get_close_matches(task, known, n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else "`lm-eval ls tasks` lists those that it brings."
            raise UsageError(f"lm-eval has no task {task!r}. {hint} Task files of your own: --lm-eval-tasks FOLDER.")


def _scores(found: Any) -> list[HarnessScore]:
    samples = found.get("n-samples", {})
    scores = []
    for task, results in found["results"].items():
        rows = samples.get(task, {}).get("effective")
        for metric, value in results.items():
            if metric in NOT_SCORES or "_stderr" in metric or not isinstance(value, int | float):
                continue
            name, _, chosen = metric.partition(",")
            error = results.get(f"{name}_stderr,{chosen}")
            scores.append(
                HarnessScore(task, metric, float(value), float(error) if isinstance(error, int | float) else None, rows)
            )
    return scores
