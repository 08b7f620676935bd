"""lm-eval from the command line: its tasks on a model of ours, and our tasks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from dudi_kit.console import notice, out, say
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError
from dudi_kit.evaluate.harness import run_harness
from dudi_kit.evaluate.harness_scores import RESULTS, HarnessScores, Mode, save_harness
from dudi_kit.evaluate.lm_eval_export import export_task
from dudi_kit.pipeline.benchmarks import read_named, tell_missing
from dudi_kit.pipeline.choice import Choice
from dudi_kit.pipeline.weights import loaded
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.models import tokenizer_of
from dudi_kit.plan.schema import ModelSource


@dataclass(frozen=True)
class HarnessWish:
    """What lm-eval is to run."""

    tasks: tuple[str, ...]
    folder: Path | None = None
    """Task files of the user's own."""

    mode: Mode = "instruct"
    shots: int | None = None
    limit: int | None = None
    batch_size: int = 8


def ask_harness(source: ModelSource, wish: HarnessWish, run: RunDir) -> None:
    """Run lm-eval's tasks on a model; save and print what it measured."""
    notice(f"lm-eval on {source.path}: {', '.join(wish.tasks)}")
    found = run_harness(
        loaded(source, who="student"),
        tokenizer_of(source, who="student"),
        wish.tasks,
        mode=wish.mode,
        folder=wish.folder,
        shots=wish.shots,
        batch_size=wish.batch_size,
        limit=wish.limit,
    )
    scores = HarnessScores(
        found.version, wish.mode, wish.shots, source.path, source.dtype, wish.limit, wish.batch_size, found.scores
    )
    save_harness(scores, run.evaluation / RESULTS)
    _show(scores)
    say(f"lm-eval's scores: {run.evaluation / RESULTS}")


def export_tasks(choice: Choice, folder: Path) -> None:
    """Write named tasks as lm-eval's, and say how to run them. DataError: none of them could be written."""
    data = read_named(choice.evaluation(), Ledger())
    tell_missing(data)
    names: list[str] = []
    for name, task in data.items():
        written = list(export_task(name, task, folder))
        names += written
        if task.rows and not written:
            notice(f"not exported: {name}: lm-eval can't check the constraints of its requests")
    if not names:
        raise DataError("nothing was exported: no task has rows that lm-eval could score.")
    say(f"{len(names)} tasks: {folder}")
    say(
        f"dudi-kit evaluate TARGET --lm-eval {_some(names)} --lm-eval-tasks {folder} --mode {choice.mode or 'instruct'}"
    )


def _some(names: Sequence[str]) -> str:
    return ",".join(names[:3]) + (",…" if len(names) > 3 else "")


def _show(found: HarnessScores) -> None:
    table = Table(title=Text(f"lm-eval {found.version}"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("task", "metric", "rows", "value", "± standard error"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for score in found.scores:
        error = "–" if score.standard_error is None else f"{score.standard_error:.4f}"
        rows = "–" if score.rows is None else f"{score.rows:,}"
        table.add_row(Text(score.task), Text(score.metric), rows, f"{score.value:.4f}", error)
    out.print(table)
