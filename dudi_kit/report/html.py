"""The report: one self-contained light page. Nothing is fetched or run, and text from outside is escaped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dudi_kit.evaluate.scores import BITS
from dudi_kit.report.benchmarks import competency_cells, coverage_names, data_rows, language_means, weak_rows
from dudi_kit.report.compare import compare, number, without_table
from dudi_kit.report.during import course_of
from dudi_kit.report.facts import headline, spikes
from dudi_kit.report.maps import competency_map, language_radar
from dudi_kit.report.paired import paired_rows
from dudi_kit.report.plots import (
    language_curves,
    loss_curves,
    measure_curves,
    score_bars,
    score_curves,
    transfer_curves,
)
from dudi_kit.report.pruning import HEADS, LEGEND, kept, pruned_rows
from dudi_kit.report.read import SUBJECTS, RunFiles, keys_at
from dudi_kit.report.samples import Sample, pick_rollouts, pick_samples, shorten
from dudi_kit.report.terminal import language_name
from dudi_kit.report.transfer import coverage, label_mass, transfer_tables
from dudi_kit.train.profile import remarks, rows_of

TEMPLATES = Path(__file__).parent / "templates"
MOST_PICTURES = 6
"""Tables of scores beside which bars are drawn; the others are tables only, so that the page stays light."""

MOST_FINDINGS = 10
"""Contaminated items that the page names; all are in evaluation/contamination.json."""

LONGEST_FILE = 60_000
"""Characters of a recipe or plan that the page shows."""


def render(run: RunFiles) -> str:
    """The whole page as a text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "language_name": language_name, "shorten": shorten}
    return environment.get_template("report.html").render(_context(run))


def _context(run: RunFiles) -> dict[str, Any]:
    comparisons = compare(run.scores)
    samples = pick_samples(run.answers)
    ledger = whole_ledger(run)
    return {
        "name": run.name,
        "description": run.recipe.get("description"),
        "facts": headline(run),
        "notes": run.notes + without_table(run.scores),
        "subjects": SUBJECTS,
        "tables": [
            (table, _svg(score_bars(table)) if i < MOST_PICTURES else None)
            for i, table in enumerate(table for table in comparisons if table.task != BITS)
        ],
        "most_pictures": MOST_PICTURES,
        "paired": paired_rows(run.answers, run.scores),
        "harness": run.harness,
        "named": _named(run),
        "contamination": _contamination(run),
        "bits": [(table, _svg(score_bars(table))) for table in comparisons if table.task == BITS],
        "curves": _svg(loss_curves(run.steps)),
        "spikes": spikes(run.steps),
        "measures": _svg(measure_curves(run.steps)),
        "during": _during(run),
        "language_curves": _language_curves(run),
        "transfer": [(table, _svg(transfer_curves(run.steps, table.signal))) for table in transfer_tables(run.steps)],
        "coverage": coverage(run.steps),
        "label_mass": label_mass(run.steps),
        "pruning": _pruning(run),
        "profile": _profile(run),
        "ledger": ledger,
        "ledger_known": run.ledger is not None,
        "ledger_languages": sorted({language for counts in ledger.values() for language in counts}),
        "samples": _by_task(samples),
        "sample_count": len(samples),
        "rollouts": pick_rollouts(run.rollouts),
        "answers": sum(len(rows) for rows in run.answers.values()),
        "files": _files(run),
        "environment": {key: _plain(value) for key, value in run.environment.items()},
    }


def _pruning(run: RunFiles) -> dict[str, Any] | None:
    """The section on a student that is cut from a bigger model."""
    planned = run.pruning
    if planned is None:
        return None
    return {"kept": kept(planned), "heads": HEADS, "legend": LEGEND, "rows": pruned_rows(planned), "planned": planned}


def _during(run: RunFiles) -> dict[str, Any] | None:
    """The section on scores during training; None where none were taken."""
    course = course_of(run.steps)
    if course is None:
        return None
    scores = [
        (score, _svg(score_curves(course.steps, score.path, course.best)) if i < MOST_PICTURES else None)
        for i, score in enumerate(course.scores)
    ]
    return {"course": course, "scores": scores}


def _profile(run: RunFiles) -> dict[str, Any] | None:
    """Where the time of a step went: the slowest process's table, and all processes where there are several."""
    if run.profile is None:
        return None
    ranks = run.profile.ranks if len(run.profile.ranks) > 1 else []
    return {"rows": rows_of(run.profile.slowest), "remarks": remarks(run.profile), "ranks": ranks}


def _named(run: RunFiles) -> dict[str, Any] | None:
    """The named tasks; None where there is none."""
    means = language_means(run.scores)
    if not means:
        return None
    maps = [
        (subject, _svg(competency_map(competency_cells(run.scores[subject], run.answers.get(subject, [])))))
        for subject in means
    ]
    return {
        "covers": coverage_names(run.scores),
        "radar": _svg(language_radar(means)),
        "maps": [(subject, picture) for subject, picture in maps if picture is not None],
        "weak": [(subject, weak_rows(run.scores[subject])) for subject in means],
        "data": data_rows(run.scores),
    }


def _contamination(run: RunFiles) -> dict[str, Any] | None:
    found = run.contamination
    if found is None:
        return None
    rows = [
        {
            "task": task,
            "language": language,
            "overlap": overlap,
            "sources": ", ".join(f"{source} {count:,}" for source, count in overlap.by_source.items()),
        }
        for task, languages in found.overlaps.items()
        for language, overlap in languages.items()
    ]
    more = max(0, len(found.findings) - MOST_FINDINGS)
    return {"rows": rows, "worst": found.findings[:MOST_FINDINGS], "more": more}


def whole_ledger(run: RunFiles) -> dict[str, dict[str, int]]:
    """The run's ledger, that of the evaluation's data, and what each model's evaluation left out."""
    ledger = dict(run.ledger or {})
    ledger |= {f"evaluation data: {event}": counts for event, counts in run.evaluation_ledger.items()}
    for subject, scores in run.scores.items():
        ledger |= {f"evaluation of {subject}: {event}": counts for event, counts in scores.left_out.items()}
    return ledger


def _language_curves(run: RunFiles) -> list[tuple[str, Markup]]:
    drawn = [(signal, _svg(language_curves(run.steps, signal))) for signal in keys_at(run.steps, "signals")]
    return [(signal.replace("_", " "), svg) for signal, svg in drawn if svg is not None]


def _svg(text: str | None) -> Markup | None:
    """Mark a picture of `plots` as safe: matplotlib escapes the texts in it."""
    return None if text is None else Markup(text)  # noqa: S704


def _by_task(samples: list[Sample]) -> dict[str, list[Sample]]:
    tasks: dict[str, list[Sample]] = {}
    for sample in samples:
        tasks.setdefault(sample.task, []).append(sample)
    return tasks


def _files(run: RunFiles) -> list[tuple[str, str]]:
    texts = [
        ("recipe.yaml", run.recipe_text),
        ("recipe.resolved.json (with every default)", _json(run.recipe)),
        ("plan.json", _json(run.plan)),
        ("lock.json (revisions and hashes)", _json(run.lock)),
    ]
    return [(title, shorten(text, LONGEST_FILE)) for title, text in texts if text]


def _json(value: Mapping[str, Any]) -> str | None:
    return json.dumps(value, indent=2, ensure_ascii=False) if value else None


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
