"""What lies on the shelf: the recipes in a folder, and the runs in another with how far they got. Without torch."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dudi_kit
from dudi_kit.plan.layout import RunDir
from dudi_kit.recipe.checks.data import datasets
from dudi_kit.recipe.diagnostics import errors
from dudi_kit.recipe.load import check_recipe
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.data import BuiltinRows, LanguageColumn
from dudi_kit.recipe.schema.models import Pretrained, ScratchStudent

CHECKOUT = Path(dudi_kit.__file__).parents[1] / "recipes"
"""The recipes of the project; an installed package has none."""

MARKS = frozenset({"student", "teacher", "extends"})
"""A YAML file with one of these keys is meant as a recipe."""

MOST_FILES = 1000
TAIL = 1 << 16
"""Bytes at the end of metrics.jsonl in which the last line is."""


@dataclass(frozen=True)
class Card:
    """A recipe in short."""

    file: Path
    mistakes: int
    name: str = ""
    description: str = ""
    teacher: str = ""
    student: str = ""
    languages: tuple[str, ...] = ()
    """Codes, or words where only the data can tell."""

    output: Path = Path("outputs")
    """Folder that its runs lie in."""


def default_folders() -> list[Path]:
    """`recipes` here, or here itself; and the project's own recipes, where it is a checkout."""
    here = Path("recipes") if Path("recipes").is_dir() else Path()
    is_other = CHECKOUT.is_dir() and not CHECKOUT.is_relative_to(here.resolve())
    return [here, CHECKOUT] if is_other else [here]


def recipes(folder: Path) -> list[Card]:
    """The recipes below a folder, hidden folders left out."""
    cards = (_card(file) for file in _yaml_files(folder))
    return [card for card in cards if card is not None]


def runs(outputs: Iterable[Path]) -> list[tuple[Path, str]]:
    """(run directory, how far it got) for all that lie in these folders."""
    folders = (folder for output in outputs if output.is_dir() for folder in sorted(output.iterdir()))
    return [(folder, found) for folder in folders if (found := state(RunDir(folder)))]


def state(run: RunDir) -> str:
    """`planned`, `step 40 of 300`, `trained` or `evaluated`; nothing for what is no run directory."""
    if run.evaluation.is_dir() and run.complete():
        return "evaluated"
    if run.complete():
        return "trained"
    step = _last_step(run.metrics)
    if step is not None:
        return f"step {step:,} of {_planned_steps(run.plan)}"
    return "planned" if run.plan.is_file() else ""


def _yaml_files(folder: Path) -> Iterator[Path]:
    found = 0
    for path, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(files):
            if name.endswith((".yaml", ".yml")) and not name.startswith("."):
                found += 1
                if found > MOST_FILES:
                    return
                yield Path(path, name)


def _card(file: Path) -> Card | None:
    checked = check_recipe(file)
    if checked.tree is None or not MARKS & set(checked.tree.plain()):
        return None
    if checked.loaded is None:
        name = checked.tree.child("name")
        return Card(file, len(errors(checked.findings)), str(name.value) if name else "")
    recipe = checked.loaded.recipe
    return Card(
        file,
        0,
        recipe.name,
        recipe.description or "",
        _model(recipe.teacher) if recipe.teacher else "",
        _model(recipe.student),
        tuple(dict.fromkeys(_languages(recipe))),
        Path(recipe.output.folder),
    )


def _model(model: Any) -> str:
    if isinstance(model, Pretrained):
        return model.gguf_file or (Path(model.model).name if os.path.isabs(model.model) else model.model)
    if isinstance(model, ScratchStudent):
        return f"{model.architecture.family} from scratch"
    return Path(model.recipe).name


def _languages(recipe: Recipe) -> Iterator[str]:
    for path, rows in datasets(recipe):
        if path[:2] != ("data", "train"):
            continue
        if rows.languages:
            yield from rows.languages
        elif isinstance(rows, BuiltinRows):
            yield "all built-in"
        elif isinstance(rows.language, LanguageColumn):
            yield "as the rows say"
        elif rows.language:
            yield rows.language


def _last_step(metrics: Path) -> int | None:
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):  # the line that a kill cut off
            continue
    return None


def _planned_steps(plan: Path) -> str:
    try:
        return f"{json.loads(plan.read_text(encoding='utf-8'))['steps']:,}"
    except (OSError, ValueError, KeyError, TypeError):
        return "?"
