"""The headline of a run in words: which models, how large, when, how long, on what. Unknown stays unsaid."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dudi_kit.report.read import RunFiles


def headline(run: RunFiles) -> list[tuple[str, str]]:
    """(what, value) of all that is known."""
    facts = {
        "Teacher": _with_size(describe_model(run.recipe.get("teacher")), run, "teacher"),
        "Student": _with_size(describe_model(run.recipe.get("student")), run, "student"),
        "Steps": f"{run.steps[-1]['step']:,}" if run.steps else None,
        "Started": _moment(run.environment.get("started")),
        "Duration": duration(run.environment),
        "Machine": _text(run.environment.get("machine")),
    }
    return [(what, value) for what, value in facts.items() if value]


def describe_model(section: object) -> str | None:
    """One line about the recipe's `teacher` or `student` section."""
    if not isinstance(section, Mapping):
        return None
    if section.get("recipe"):
        return f"recipe {section['recipe']}"
    if section.get("model"):
        revision = f" @ {section['revision']}" if section.get("revision") else ""
        return f"{section['model']}{revision}"
    shape = section.get("architecture")
    if isinstance(shape, Mapping):
        return f"{shape.get('family', '?')}, {shape.get('layers', '?')} × {shape.get('hidden_size', '?')}, from scratch"
    return None


def parameters(run: RunFiles, who: str) -> int | None:
    """How many parameters the plan counted for `teacher` or `student`."""
    table = run.plan.get("parameters")
    count = table.get(who) if isinstance(table, Mapping) else None
    return count if isinstance(count, int) else None


def short_count(count: int) -> str:
    """12,345,678 → `12.3 M`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def duration(environment: Mapping[str, Any]) -> str | None:
    """From `started` to `finished`, as `1 h 2 min` or `3 min 4 s`."""
    try:
        span = datetime.fromisoformat(environment["finished"]) - datetime.fromisoformat(environment["started"])
    except (KeyError, TypeError, ValueError):
        return None
    seconds = math.floor(span.total_seconds())
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def _with_size(text: str | None, run: RunFiles, who: str) -> str | None:
    count = parameters(run, who)
    return f"{text} ({short_count(count)} parameters)" if text and count else text


def _moment(value: object) -> str | None:
    """`2026-11-22 10:00 UTC`; what is no time stays as it is."""
    try:
        return datetime.fromisoformat(str(value)).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return _text(value)


def _text(value: object) -> str | None:
    return str(value) if value else None
