"""One model on named tasks, in the terminal: a line for each task and language, then means that say what they cover."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dudi_kit.evaluate.scores import LanguageScores, MetricScore, Missing, Scores
from dudi_kit.evaluate.seahelm.aggregate import Aggregates

COLUMNS = ("task", "", "rows", "of", "score", "no floor", "null", "cut")


def standings_table(scores: Scores, missing: Sequence[Missing]) -> Group:
    """For `Console.print`. missing: what is to be said of the scores that there are not."""
    parts: list[RenderableType] = [_tasks(scores)] if any(task.languages for task in scores.tasks.values()) else []
    parts += [Text(line) for line in _missing(missing)]
    parts += [part for found in scores.aggregates[:1] for part in _means(found)]
    return Group(*parts)


def _tasks(scores: Scores) -> Table:
    """Score with interval; what it is without a floor at 0; answers that hold none; answers that were cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=Text(_metrics(scores)), caption_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("task", "") else "right")
    for task, scored in scores.tasks.items():
        for place, (language, row) in enumerate(scored.languages.items()):
            score = next(iter(row.metrics.values()))
            table.add_row(
                Text("" if place else task),
                Text(language),
                f"{row.rows:,}",
                "–" if row.of_rows is None else f"{row.of_rows:,}",
                _value(score),
                _unfloored(row, score),
                _no_answer(row),
                f"{row.truncated:,}",
            )
        if scored.languages:
            table.add_section()
    return table


def _metrics(scores: Scores) -> str:
    """Which tasks are scored by what."""
    found: dict[str, list[str]] = {}
    for task, scored in scores.tasks.items():
        for row in list(scored.languages.values())[:1]:
            found.setdefault(next(iter(row.metrics)), []).append(task)
    return "\n".join(f"{metric}: {', '.join(tasks)}" for metric, tasks in found.items())


def _value(score: MetricScore) -> str:
    """With its 95 % interval."""
    around = f" ({score.interval[0]:.1f}–{score.interval[1]:.1f})" if score.interval else ""
    return f"{score.value:.1f}{around}"


def _unfloored(row: LanguageScores, score: MetricScore) -> str:
    """What a floor at 0 hides, with its interval where the floor cut that too."""
    if row.weak is None:
        return "–"
    around = score.unfloored and " ({:.1f} … {:.1f})".format(*score.unfloored.interval)
    return f"{row.weak.unfloored:.1f}{around or ''}".replace("-", "−")


def _no_answer(row: LanguageScores) -> str:
    return "–" if row.null is None else f"{row.null:,}"


def _missing(found: Sequence[Missing]) -> Iterator[str]:
    """Each reason once."""
    places: dict[str, list[str]] = {}
    for missing in found:
        places.setdefault(missing.reason, []).append(f"{missing.task} {missing.language}")
    for reason, named in places.items():
        yield f"not scored: {', '.join(named)}: {reason}"


def _means(found: Aggregates) -> Iterator[RenderableType]:
    languages = list(found.languages)
    competencies = list(dict.fromkeys(name for row in found.competencies.values() for name in row))
    if not languages:
        return
    title = Text(f"\nMeans of tasks, joined as SEA-HELM does ({found.mode}), in percent")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("competency")
    for language in languages:
        table.add_column(language, justify="right")
    for competency in competencies:
        cells = [found.competencies[language].get(competency) for language in languages]
        table.add_row(Text(competency), *(_number(cell.value if cell else None) for cell in cells))
    table.add_section()
    table.add_row("mean", *(_number(found.languages[language].value) for language in languages))
    yield table
    for competency in competencies:
        yield Text(f"{competency}: {_covers(found, competency)}")
    overall = found.overall
    yield Text(f"{overall.name}: {'–' if overall.value is None else f'{overall.value:.1f}'}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _covers(found: Aggregates, competency: str) -> str:
    """The tasks that a competency is the mean of, and what SEA-HELM's has besides."""
    rows = [row[competency] for row in found.competencies.values() if competency in row]
    have = dict.fromkeys(task for row in rows for task in row.covers)
    lacks = dict.fromkeys(task for row in rows for task in row.missing if task not in have)
    told = f"covers {', '.join(have) or 'nothing'}"
    if all(row.whole for row in rows):
        return f"{told}; whole, as in SEA-HELM"
    return f"{told}; not SEA-HELM's score" + (f", which has {', '.join(lacks)} too" if lacks else "")
