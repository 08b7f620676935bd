"""SEA-HELM as referee: our answers in the form of a run of its own, scored by its own code, beside our scores.

It is started in a folder that stands for the user's checkout, with a task set of its own: nothing is written into the
checkout. Its task sets, its data and its Python are the user's.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.table import Table
from rich.text import Text

from dudi_kit.console import notice, out, say
from dudi_kit.errors import DataError, EnvironmentLack, RunDirectoryError
from dudi_kit.evaluate.scores import AnswerRow, LanguageScores, Scores, TaskFacts, load_answers, load_scores
from dudi_kit.plan.layout import RunDir, write_text
from dudi_kit.recipe.schema.evaluation import Subject

ENTRIES = ("src/seahelm_evaluation.py", "seahelm_evaluation.py")
"""Where its entry script may lie below a checkout; v1.2.1 and newer ones differ."""

TASKS, TASK_SET = "seahelm_tasks", "dudi_kit"
LAST_LINES = 8


@dataclass(frozen=True)
class Entry:
    """A task in one language that SEA-HELM can score."""

    task: str
    """Its name there."""

    language: str
    group: str
    """Its folder there: the group that it is averaged in, or its own name."""

    answers: list[str]
    """In the order of SEA-HELM's rows."""

    figures: Mapping[str, float]
    """Ours, by SEA-HELM's names."""


@dataclass(frozen=True)
class Compared:
    """One figure, scored twice."""

    task: str
    language: str
    figure: str
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        """In the figure's own unit: percent, or rows."""
        return abs(self.ours - self.theirs)


def verify(run: Path, home: Path, python: str, subject: Subject) -> None:
    """Have SEA-HELM score what a model answered; print both scores and the largest difference."""
    scores, answers = _evaluated(run, subject)
    script = next((home / name for name in ENTRIES if (home / name).is_file()), None)
    if script is None:
        raise EnvironmentLack(f"{home} is no checkout of SEA-HELM: there is no {' or '.join(ENTRIES)}.")
    groups = _groups(home)
    entries, left_out = entries_of(scores, answers, home, groups)
    for reason in left_out:
        notice(f"left out: {reason}")
    if not entries:
        raise DataError(
            "nothing to verify: no task was scored on all of SEA-HELM's own rows with its own prompt. Evaluate with "
            "evaluation.seahelm_home and without a limit."
        )
    folder = RunDir(run).evaluation / "seahelm"
    model = f"{run.resolve().name}-{subject}"
    shutil.rmtree(folder, ignore_errors=True)
    export(entries, folder / "results" / model)
    place = _stand_in(home, folder / "checkout", entries)
    _run([python, str(script.resolve())], model, folder / "results", place, home)
    found = list(compared(entries, _results(folder / "results" / model)))
    _show(found)


def entries_of(
    scores: Scores, answers: Sequence[AnswerRow], home: Path, groups: Mapping[str, str]
) -> tuple[list[Entry], list[str]]:
    """What SEA-HELM can score, and why it can't score the rest. groups: SEA-HELM's tasks → their folders."""
    entries: list[Entry] = []
    left_out: list[str] = []
    for name, scored in scores.tasks.items():
        for language, row in scored.languages.items():
            reason = _unfit(scored.about, row, home, groups)
            if reason is not None or scored.about is None or scored.about.seahelm is None:
                left_out.append(f"{name} {language}: {reason}")
                continue
            theirs = scored.about.seahelm
            said = [answer.answer for answer in answers if (answer.task, answer.language) == (name, language)]
            entries.append(Entry(theirs, language, groups[theirs], said, row.figures))
    return entries, left_out


def _unfit(about: TaskFacts | None, row: LanguageScores, home: Path, groups: Mapping[str, str]) -> str | None:
    """Why SEA-HELM can't score these answers as we did."""
    source, _, prompts = row.source.partition("; prompts by ")
    if about is None or about.seahelm not in groups:
        return "not a task of this checkout"
    if not source.startswith(("hub:aisingapore/", str(home.absolute()))):
        return f"its rows are not SEA-HELM's own ({source})"
    if prompts != "SEA-HELM":
        return "asked with our prompt, whose answer tag SEA-HELM does not look for"
    if row.rows != row.of_rows:
        return f"only {row.rows:,} of its {row.of_rows or 0:,} rows were answered"
    if (about.mode, about.scoring) != ("instruct", "generation"):
        return f"asked in mode {about.mode} with {about.scoring}; only written answers of instruct mode are compared"
    if about.metric == "chrf++":
        return "scored by chrF++ here and by MetricX there"
    return None


def export(entries: Sequence[Entry], folder: Path) -> None:
    """Write answers as a run of SEA-HELM keeps them. folder: OUTPUT/MODEL, whose name is the model's."""
    for entry in entries:
        name = f"{folder.name}_{entry.task}_{entry.language}_turn1_batch_response.jsonl"
        lines = (json.dumps({"responses": text, "errors": None}, ensure_ascii=False) for text in entry.answers)
        place = folder / "run_0" / "inferences" / entry.language / entry.group / name
        write_text(place, "".join(f"{line}\n" for line in lines))


def compared(entries: Sequence[Entry], results: Mapping[str, Any]) -> Iterator[Compared]:
    """Every figure that both have. results: language → competency → task → figures. EnvironmentLack: SEA-HELM has no
    score of a task; the 0 that it then writes is none."""
    for entry in entries:
        found = [tasks[entry.task] for tasks in results.get(entry.language, {}).values() if entry.task in tasks]
        if not found or "error" in found[0]:
            raise EnvironmentLack(f"SEA-HELM has no score of {entry.task} in {entry.language}; see its log.")
        for figure, theirs in found[0].items():
            if figure in entry.figures and isinstance(theirs, int | float):
                yield Compared(entry.task, entry.language, figure, entry.figures[figure], float(theirs))


def _evaluated(run: Path, subject: Subject) -> tuple[Scores, list[AnswerRow]]:
    folder = RunDir(run).evaluation
    scores, answers = folder / f"{subject}.json", folder / f"{subject}.answers.jsonl"
    if not scores.is_file() or not answers.is_file():
        raise RunDirectoryError(f"{run} has no scores of '{subject}': call `dudi-kit evaluate` first.")
    return load_scores(scores), load_answers(answers)


def _groups(home: Path) -> dict[str, str]:
    """SEA-HELM's tasks → the folders that it keeps their answers in."""
    found: dict[str, str] = {}
    for file in sorted((home / TASKS).rglob("config.yaml")):
        try:
            tasks = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise DataError(f"{file} can't be read: {error}") from error
        for name, task in tasks.items() if isinstance(tasks, dict) else ():
            found[name] = str(task.get("aggregation_group", name)) if isinstance(task, dict) else name
    return found


def _stand_in(home: Path, folder: Path, entries: Sequence[Entry]) -> Path:
    """A folder that looks like the checkout, but for its task sets: links, and a task_config.yaml of ours."""
    tasks = folder / TASKS
    tasks.mkdir(parents=True)
    for above, here in ((home, folder), (home / TASKS, tasks)):
        for path in above.iterdir():
            if path.name not in (TASKS, "task_config.yaml"):
                (here / path.name).symlink_to(path.resolve())
    chosen: dict[str, list[str]] = {}
    for entry in entries:
        chosen.setdefault(entry.language, []).append(entry.task)
    write_text(tasks / "task_config.yaml", yaml.safe_dump({TASK_SET: chosen}, sort_keys=False))
    return folder


def _run(command: list[str], model: str, output: Path, place: Path, home: Path) -> None:
    options = {
        "--tasks": TASK_SET,
        "--output_dir": str(output.resolve()),
        "--model_type": "none",
        "--model_name": model,
    }
    words = [*command, *(word for option in options.items() for word in option), "--run", "0"]
    log = output / "seahelm.log"
    notice(f"SEA-HELM scores the answers; its log: {log}")
    try:
        with log.open("w", encoding="utf-8") as file:
            path = os.pathsep.join(filter(None, [str(home.resolve()), os.environ.get("PYTHONPATH")]))
            done = subprocess.run(  # noqa: S603 -- the user names the Python and the checkout
                words,
                cwd=place,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": path},
                check=False,
            )
    except OSError as error:
        raise EnvironmentLack(f"--seahelm-python {command[0]}: {error.strerror or error}") from error
    if done.returncode:
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])
        raise EnvironmentLack(f"SEA-HELM ended with {done.returncode}. Its last lines ({log}):\n{last}")


def _results(folder: Path) -> Mapping[str, Any]:
    files = sorted((folder / "run_0" / "results").glob("*_seahelm_results_*.json"))
    if not files:
        raise EnvironmentLack(f"SEA-HELM left no results in {folder / 'run_0' / 'results'}; see its log.")
    found: Mapping[str, Any] = json.loads(files[-1].read_text(encoding="utf-8"))
    return found


def _show(found: Sequence[Compared]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("task", "", "figure", "ours", "SEA-HELM", "difference"):
        table.add_column(name, justify="left" if name in ("task", "", "figure") else "right")
    for each in found:
        numbers = (f"{each.ours:.6f}", f"{each.theirs:.6f}", f"{each.difference:.1e}")
        table.add_row(Text(each.task), Text(each.language), Text(each.figure), *numbers)
    out.print(table)
    worst = max(found, key=lambda each: each.difference, default=None)
    if worst is None:
        raise EnvironmentLack("SEA-HELM's results have no figure that we have too; see its log.")
    say(f"largest difference: {worst.difference:.1e} ({worst.task} {worst.language}, {worst.figure})")
