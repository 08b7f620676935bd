"""What the student scored while it trained: before the first step, at the best one, and at the last."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dudi_kit.recipe.schema.evaluation import BITS
from dudi_kit.report.read import keys_at, series

Path = tuple[str, ...]
LANGUAGES = "by_language"


@dataclass(frozen=True)
class ScoreCourse:
    """One score over the steps."""

    title: str
    path: Path
    """Where it lies in a line of metrics.jsonl."""

    rows: list[tuple[str, dict[int, float]]]
    """(language or `mean`, step → value) at the steps of the table."""

    @property
    def digits(self) -> int:
        """That are shown: of a percentage over a few rows one is enough."""
        return 3 if BITS in self.title else 1


@dataclass(frozen=True)
class Course:
    """All scores of a run."""

    steps: list[dict[str, Any]]
    """Lines with scores of the same rows."""

    shown: list[int]
    """Steps of the tables: the first, the best and the last that was scored."""

    best: int | None
    by: str | None
    """The score that picked the best step."""

    scores: list[ScoreCourse]
    missing: list[tuple[str, str, str]]
    """(task, language, reason) of what the last scoring could not score."""


def course_of(steps: list[dict[str, Any]]) -> Course | None:
    """The scores in the lines of metrics.jsonl; None where there is none. Where a resumed run was asked other rows than
    before, only the later ones: the two can't be compared."""
    scored = [line for line in steps if isinstance(line.get("evaluation"), Mapping)]
    if not scored:
        return None
    last = scored[-1]["evaluation"]
    same = [line for line in scored if line["evaluation"].get("of") == last.get("of")]
    best = last.get("best") or {}
    shown = sorted({same[0]["step"], same[-1]["step"], *([best["step"]] if best else [])})
    missing = [
        (task, language, reason)
        for task, lacking in last.get("missing", {}).items()
        for language, reason in lacking.items()
    ]
    scores = [_score(same, shown, title, path) for title, path in _paths(same).items()]
    return Course(same, shown, best.get("step"), best.get("by"), scores, missing)


def _paths(steps: list[dict[str, Any]]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    if keys_at(steps, "evaluation", "bits_per_byte"):
        paths[f"{BITS} of held-out responses"] = ("evaluation", "bits_per_byte")
    for task in keys_at(steps, "evaluation", "tasks"):
        for metric in keys_at(steps, "evaluation", "tasks", task):
            paths[f"{task}: {metric.replace('_', ' ')}"] = ("evaluation", "tasks", task, metric)
    return paths


def _score(steps: list[dict[str, Any]], shown: list[int], title: str, path: Path) -> ScoreCourse:
    curves = {
        language: dict(series(steps, *path, LANGUAGES, language)) for language in keys_at(steps, *path, LANGUAGES)
    }
    curves["mean"] = dict(series(steps, *path, "all"))
    rows = [(name, {step: curve[step] for step in shown if step in curve}) for name, curve in curves.items()]
    return ScoreCourse(title, path, rows)
