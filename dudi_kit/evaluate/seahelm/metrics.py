"""The metrics of SEA-HELM's tasks in one table: responses and references of a task in one language → figures.

Every figure goes by SEA-HELM's name and is on its scale: percent, counts aside. `Scored.items` has one value a row, so
that intervals and paired tests can resample rows.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from dudi_kit.errors import DataError
from dudi_kit.evaluate.seahelm import classification, rouge
from dudi_kit.evaluate.seahelm.answers import answer_score
from dudi_kit.evaluate.seahelm.chrf import chrf_plus_plus, sentence_chrf
from dudi_kit.evaluate.seahelm.language import is_in_language
from dudi_kit.evaluate.seahelm.parsing import label_reader, line_reader
from dudi_kit.evaluate.seahelm.tokens import answer_tokenizer_of, tokenizer_of

Mode = Literal["run-json", "leaderboard"]
"""Which of SEA-HELM's two ways: what a run of it writes, or what its leaderboard's notebook makes of several runs."""

Need = Literal["labels", "references", "followed"]


@dataclass(frozen=True)
class Rows:
    """A task in one language: what was asked for and what was answered, row by row."""

    language: str
    """Of the task; answers are in it unless `answer_languages` says otherwise."""

    responses: Sequence[str | None]
    """None where there is none; it counts as an empty one."""

    tag: str = ""
    """Announces the answer: a regular expression."""

    references: Sequence[Sequence[str]] = ()
    """Right answers of each row; one label, summary or translation, or several short answers."""

    labels: Sequence[str] | None = None
    """All labels that are right somewhere in the full set, even where these rows are a part of it: chance is 1 / their
    number."""

    followed: Sequence[bool | None] = ()
    """Whether the instruction of each row was followed; None where SEA-HELM does not judge the row."""

    answer_languages: Sequence[str] | None = None
    """The language that each answer should be in, where it is not the task's."""

    @property
    def silent(self) -> bool:
        """No response has any text. SEA-HELM's score is then 0, which looks like one: report it as missing."""
        return not any((response or "").strip() for response in self.responses)


@dataclass(frozen=True)
class Scored:
    """A task in one language, scored."""

    metric: str
    main: str
    """The figure that is aggregated."""

    figures: dict[str, float]
    """SEA-HELM's name → value, in percent; `null_count` in rows."""

    items: list[float | None]
    """One value a row, in percent; None where the row is not judged."""

    parsed: list[str | None]
    """What each response was read as; None where a label was asked for and there was none."""

    tokenizer: str | None = None
    """What cut the texts, with its version."""

    @property
    def value(self) -> float:
        """The figure that is aggregated, in percent."""
        return self.figures[self.main]


@dataclass(frozen=True)
class TaskMetric:
    """A metric, what it needs and how it is computed."""

    score: Callable[[Rows, Mode], Scored]
    needs: frozenset[Need]
    substitute_for: str | None = None
    """SEA-HELM's own metric where this one only stands in for it."""


def score(metric: str, rows: Rows, mode: Mode = "run-json") -> Scored:
    """Score one task in one language.

    Raises DataError where the rows lack what the metric needs, and EnvironmentLack where a package is missing: either
    way there is no score, and the reason is the error's text.
    """
    entry = metric_named(metric)
    _check(rows, metric, entry)
    return entry.score(rows, mode)


def metric_named(name: str) -> TaskMetric:
    """The metric of that name; a DataError with the nearest spelling where there is none."""
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(name.lower(), METRICS, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise DataError(f"metric {name!r}: no such metric. {hint}There are: {', '.join(METRICS)}")


def _balanced_accuracy(rows: Rows, mode: Mode) -> Scored:
    """Mean recall over the right labels, normalised so that guessing is 0."""
    labels = rows.labels or ()
    read = label_reader(rows.tag, labels)
    gold, parsed = [references[0] for references in rows.references], [read(text) for text in rows.responses]
    if strangers := sorted(set(gold) - set(labels)):
        raise DataError(f"right answers {strangers!r} are not among the labels {list(labels)!r}. Add them there")
    accuracy = classification.balanced_accuracy(gold, parsed)
    figures = {
        "accuracy": 100 * accuracy,
        "macro_f1": 100 * classification.macro_f1(gold, parsed),
        "null_weighted_f1": 100 * classification.null_weighted_f1(gold, parsed),
        "normalized_accuracy": 100 * max(classification.above_chance(accuracy, len(labels)), 0.0),
        "null_count": parsed.count(None),
    }
    items: list[float | None] = [100.0 * hit for hit in classification.hits(gold, parsed)]
    return Scored("balanced_accuracy", "normalized_accuracy", figures, items, parsed)


def _token_f1(rows: Rows, mode: Mode) -> Scored:
    """F1 of the words of a short answer, the best over the references."""
    parsed, tokenizer = _lines(rows), answer_tokenizer_of(rows.language)
    scores = [answer_score(*pair, rows.language) for pair in zip(parsed, rows.references, strict=True)]
    f1 = 100 * sum(row.f1 for row in scores) / len(scores)
    figures = {
        "exact_match": 100 * sum(row.exact for row in scores) / len(scores),
        "f1": f1,
        "normalized_f1": f1,
        "found_in_prediction": 100 * sum(row.found for row in scores) / len(scores),
        "null_count": parsed.count(""),
    }
    items: list[float | None] = [100 * row.f1 for row in scores]
    return Scored("token_f1", "normalized_f1", figures, items, list(parsed), tokenizer)


def _rouge_l(rows: Rows, mode: Mode) -> Scored:
    """F1 of the longest common subsequence of a summary's and its reference's words."""
    parsed, tokenizer = _lines(rows), tokenizer_of(rows.language)
    scores = [
        rouge.rouge_l(references[0], summary, rows.language)
        for references, summary in zip(rows.references, parsed, strict=True)
    ]
    middle = rouge.bootstrap_median(scores) if mode == "run-json" else rouge.mean(scores)
    figures = {
        "null_count": parsed.count(""),
        "rougel_precision": 100 * middle.precision,
        "rougel_recall": 100 * middle.recall,
        "rougel_f1": 100 * middle.f1,
        "normalized_rougel_f1": 100 * middle.f1,
    }
    items: list[float | None] = [100 * row.f1 for row in scores]
    return Scored("rouge_l", "normalized_rougel_f1", figures, items, list(parsed), tokenizer)


def _chrf_plus_plus(rows: Rows, mode: Mode) -> Scored:
    """F-score of a translation's character 6-grams and word 2-grams, over the whole corpus."""
    parsed, gold = _lines(rows), [references[0] for references in rows.references]
    value = chrf_plus_plus(gold, parsed)
    figures = {"chrf_score": value, "normalized_chrf_score": value, "null_count": parsed.count("")}
    items: list[float | None] = [sentence_chrf(*pair) for pair in zip(gold, parsed, strict=True)]
    return Scored("chrf++", "normalized_chrf_score", figures, items, list(parsed))


def _strict_pass(rows: Rows, mode: Mode) -> Scored:
    """Instruction followed, and the answer in the right language."""
    texts = [response or "" for response in rows.responses]
    expected = rows.answer_languages or [rows.language] * len(texts)
    speaks = [is_in_language(text, language) for text, language in zip(texts, expected, strict=True)]
    judged = [i for i, followed in enumerate(rows.followed) if followed is not None]
    if not judged:
        raise DataError("no row of the task is judged in this language")
    items = [
        None if followed is None else 100.0 * (followed and right)
        for followed, right in zip(rows.followed, speaks, strict=True)
    ]
    figures = {
        "overall_acc": 100 * sum(bool(rows.followed[i]) for i in judged) / len(judged),
        "correct_language_rate": 100 * sum(speaks[i] for i in judged) / len(judged),
        "overall_lang_normalized_acc": sum(items[i] or 0.0 for i in judged) / len(judged),
    }
    return Scored("strict_pass", "overall_lang_normalized_acc", figures, items, list(texts))


METRICS: dict[str, TaskMetric] = {
    "balanced_accuracy": TaskMetric(_balanced_accuracy, frozenset({"labels", "references"})),
    "token_f1": TaskMetric(_token_f1, frozenset({"references"})),
    "rouge_l": TaskMetric(_rouge_l, frozenset({"references"})),
    "chrf++": TaskMetric(_chrf_plus_plus, frozenset({"references"}), substitute_for="MetricX-24-XXL"),
    "strict_pass": TaskMetric(_strict_pass, frozenset({"followed"})),
}
"""Name → metric. All values are in percent and higher is better."""


MEANS_OF_ITEMS: frozenset[str] = frozenset({"balanced_accuracy", "token_f1", "rouge_l", "strict_pass"})
"""Metrics that are a mean of what their rows are worth; chrF++ is not, and has no interval."""


def _lines(rows: Rows) -> list[str]:
    read = line_reader(rows.tag)
    return [read(response) for response in rows.responses]


def _check(rows: Rows, metric: str, entry: TaskMetric) -> None:
    count = len(rows.responses)
    if count == 0:
        raise DataError(f"{metric} in {rows.language}: no rows, so there is no score")
    if "labels" in entry.needs and rows.labels is None:
        raise DataError(f"{metric} needs the labels of the full set")
    given = {"references": rows.references, "followed": rows.followed, "answer_languages": rows.answer_languages}
    for name, values in given.items():
        wanted = name in entry.needs or (name == "answer_languages" and values is not None)
        if wanted and len(values or ()) != count:
            raise DataError(
                f"{metric} needs {name} for each response: {count:,} responses, {len(values or ()):,} {name}"
            )
    if "references" in entry.needs and not all(rows.references):
        row = 1 + [bool(texts) for texts in rows.references].index(False)
        raise DataError(f"{metric} needs a right answer for each row; row {row:,} has none")
