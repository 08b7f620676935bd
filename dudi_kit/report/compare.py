"""Teacher, before and after side by side: the rows that terminal, page and card print alike."""

from collections.abc import Mapping
from dataclasses import dataclass

from dudi_kit.evaluate.scores import BITS, MetricScore, Scores, mean_of
from dudi_kit.recipe.schema.evaluation import Subject

MEAN = "mean"

Cells = dict[str, dict[Subject, MetricScore]]
"""language → model → score; what is missing is absent."""


@dataclass(frozen=True)
class Row:
    """One language (or the mean over languages) of a comparison."""

    language: str
    scores: dict[Subject, MetricScore]
    """Only the models that have this score."""

    best: frozenset[Subject]
    """The models with the best value; none where all have the same, or only one has a score."""

    @property
    def change(self) -> float | None:
        """After − before; None where either is missing."""
        if "before" in self.scores and "after" in self.scores:
            return self.scores["after"].value - self.scores["before"].value
        return None


@dataclass(frozen=True)
class Comparison:
    """One metric of one task, or bits per byte."""

    task: str
    metric: str
    unit: str
    higher_is_better: bool
    digits: int
    rows: list[Row]
    remarks: list[str]
    """In words: languages that the mean lacks and, under a task's first metric, its null, cut, empty and missing
    answers."""

    @property
    def title(self) -> str:
        """`task: metric (unit)`."""
        what = self.task if self.task == self.metric else f"{self.task}: {self.metric}"
        return f"{what} ({self.unit}; {'higher' if self.higher_is_better else 'lower'} is better)"


def compare(scores: Mapping[Subject, Scores]) -> list[Comparison]:
    """Every task and metric that any of the models has, then bits per byte."""
    pairs = {
        (task, metric): None
        for model in scores.values()
        for task, result in model.tasks.items()
        for language in result.languages.values()
        for metric in language.metrics
    }
    tables: list[Comparison] = []
    for task, metric in pairs:
        first = not any(table.task == task for table in tables)
        remarks = _answer_remarks(scores, task) + _missing_remarks(scores, task) if first else []
        tables.append(_compare_metric(scores, task, metric, remarks))
    return [*tables, *_compare_bits(scores)]


def without_table(scores: Mapping[Subject, Scores]) -> list[str]:
    """What is missing of tasks, or of bits per byte, that no model has any score of, and so no table tells."""
    told = {table.task for table in compare(scores)}
    tasks = {missing.task: None for model in scores.values() for missing in model.missing if missing.task not in told}
    return [f"{task}: {remark}" for task in tasks for remark in _missing_remarks(scores, task)]


def number(value: float | None, digits: int, *, signed: bool = False) -> str:
    """A number for people: a real minus sign, and a dash where there is none."""
    if value is None:
        return "–"
    rounded = round(value, digits) + 0.0  # +0.0 turns −0.0 into 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{digits}f}".replace("-", "−")


def _compare_metric(scores: Mapping[Subject, Scores], task: str, metric: str, remarks: list[str]) -> Comparison:
    cells: Cells = {}
    for subject, model in scores.items():
        for language, row in model.tasks[task].languages.items() if task in model.tasks else ():
            if metric in row.metrics:
                cells.setdefault(language, {})[subject] = row.metrics[metric]
    rows, about_mean = _rows(cells, higher_is_better=True)
    unit = next(score.unit for row in cells.values() for score in row.values())
    return Comparison(task, metric, unit, True, 1, rows, about_mean + remarks)


def _compare_bits(scores: Mapping[Subject, Scores]) -> list[Comparison]:
    cells: Cells = {}
    for subject, model in scores.items():
        for language, bits in model.bits_per_byte.items():
            cells.setdefault(language, {})[subject] = MetricScore(bits.value, unit="bits")
    if not cells:
        return []
    rows, remarks = _rows(cells, higher_is_better=False)
    remarks += _other_rows_remarks(scores) + _missing_remarks(scores, BITS)
    return [Comparison(BITS, BITS, "held-out responses", False, 3, rows, remarks)]


def _rows(cells: Cells, *, higher_is_better: bool) -> tuple[list[Row], list[str]]:
    """Rows by language and, of more than one, the mean over the languages that every model has, so that it compares."""
    rows = [Row(language, cells[language], _best(cells[language], higher_is_better)) for language in sorted(cells)]
    subjects = {subject: None for row in rows for subject in row.scores}
    common = [row for row in rows if len(row.scores) == len(subjects)]
    if len(rows) < 2 or not common:
        return rows, []
    means = {who: mean_of({row.language: row.scores[who].value for row in common}) for who in subjects}
    scores = {who: MetricScore(mean.value) for who, mean in means.items() if mean is not None}
    without = ", ".join(row.language for row in rows if row not in common)
    remarks = [f"mean without {without}, which not every model has"] if without else []
    return [*rows, Row(MEAN, scores, _best(scores, higher_is_better))], remarks


def _best(scores: Mapping[Subject, MetricScore], higher_is_better: bool) -> frozenset[Subject]:
    if len(scores) < 2:
        return frozenset()
    values = [score.value for score in scores.values()]
    if min(values) == max(values):
        return frozenset()
    best = max(values) if higher_is_better else min(values)
    return frozenset(who for who, score in scores.items() if score.value == best)


def _other_rows_remarks(scores: Mapping[Subject, Scores]) -> list[str]:
    """Languages in which a row was too long for one model and not for another, so that the values don't compare."""
    sizes: dict[str, set[int]] = {}
    for model in scores.values():
        for language, bits in model.bits_per_byte.items():
            sizes.setdefault(language, set()).add(bits.bytes)
    uneven = ", ".join(language for language, sizes_seen in sorted(sizes.items()) if len(sizes_seen) > 1)
    return [f"not over the same rows, which were too long for some models: {uneven}"] if uneven else []


def _answer_remarks(scores: Mapping[Subject, Scores], task: str) -> list[str]:
    """`before: 160 rows; 12 null, 3 truncated, 1 empty, 2 too long` for each model."""
    remarks = []
    for subject, model in scores.items():
        languages = list(model.tasks[task].languages.values()) if task in model.tasks else []
        if not languages:
            continue
        counts = {
            "null": sum(row.null or 0 for row in languages),
            "truncated": sum(row.truncated for row in languages),
            "empty": sum(row.empty for row in languages),
            "too long": sum(row.too_long for row in languages),
        }
        shown = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        remarks.append(f"{subject}: {sum(row.rows for row in languages):,} rows; {shown or 'every answer whole'}")
    return remarks


def _missing_remarks(scores: Mapping[Subject, Scores], task: str) -> list[str]:
    """`su is missing (teacher, before, after): no rows`."""
    who: dict[tuple[str, str], list[str]] = {}
    for subject, model in scores.items():
        for missing in model.missing:
            if missing.task == task:
                who.setdefault((missing.language, missing.reason), []).append(subject)
    return [f"{language} is missing ({', '.join(names)}): {reason}" for (language, reason), names in who.items()]
