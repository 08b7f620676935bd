"""The headline of a run in words: which models, how large, when, how long, on what. Unknown stays unsaid."""

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any

from dudi_kit.report.read import RunFiles, keys_at, series


def headline(run: RunFiles) -> list[tuple[str, str]]:
    """(what, value) of all that is known."""
    facts = {
        "Teacher": _with_size(describe_model(run.recipe.get("teacher")), run.plan.get("teacher_parameters")),
        "Student": _with_size(describe_model(run.recipe.get("student")), run.plan.get("parameters")),
        "Steps": f"{run.steps[-1]['step']:,}" if run.steps else None,
        "Began": _moment(run.environment.get("began")),
        "Training time": duration(run.environment.get("seconds")),
        "Machine": _machine(run.environment),
    }
    return [(what, value) for what, value in facts.items() if value]


def spikes(steps: list[dict[str, Any]]) -> str | None:
    """How many logged lines have a spike of which quantity, and where the first ones are; None without any."""
    told = []
    for name in keys_at(steps, "spikes"):
        at = [step for step, _ in series(steps, "spikes", name)]
        told.append(f"{name} {len(at):,} (step {', '.join(map(str, at[:5]))}{', …' * (len(at) > 5)})")
    return f"Spikes: {'; '.join(told)}, among {len(steps):,} logged lines." if told else None


def describe_model(section: object) -> str | None:
    """One line about the recipe's `teacher` or `student` section."""
    if not isinstance(section, Mapping):
        return None
    if section.get("recipe"):
        return f"recipe {_public(section['recipe'])}"
    if section.get("model"):
        revision = f" @ {section['revision']}" if section.get("revision") else ""
        return f"{_public(section['model'])}{revision}"
    shape = section.get("architecture")
    if isinstance(shape, Mapping):
        return f"{shape.get('family', '?')}, {shape.get('layers', '?')} × {shape.get('hidden_size', '?')}, from scratch"
    return None


def _public(source: object) -> str:
    """A hub name or relative path as it is; of an absolute path the last part: a card is no place for a home folder."""
    path = PurePath(str(source))
    return path.name if path.is_absolute() else str(source)


def short_count(count: int) -> str:
    """12,345,678 → `12.3 M`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def duration(seconds: object) -> str | None:
    """`1 h 2 min`, `3 min 4 s` or `5 s`."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return None
    whole = math.floor(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _with_size(text: str | None, parameters: object) -> str | None:
    return f"{text} ({short_count(parameters)} parameters)" if text and isinstance(parameters, int) else text


def _machine(environment: Mapping[str, Any]) -> str | None:
    """System, and the number of processes that trained."""
    processes = environment.get("processes")
    parts = [_text(environment.get("system")), f"{processes} process{'es' * (processes != 1)}" if processes else None]
    return ", ".join(part for part in parts if part) or None


def _moment(value: object) -> str | None:
    """`2026-11-22 10:00 UTC`; what is no time stays as it is."""
    try:
        return datetime.fromisoformat(str(value)).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return _text(value)


def _text(value: object) -> str | None:
    return str(value) if value else None
