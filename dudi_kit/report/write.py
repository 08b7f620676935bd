"""Write what a run directory ends with: report.html, and the card of the final model."""

from pathlib import Path

from dudi_kit.errors import RunDirectoryError
from dudi_kit.plan.layout import RunDir, write_text
from dudi_kit.report.card import model_card
from dudi_kit.report.html import render
from dudi_kit.report.read import read_run


def write_report(run_dir: Path) -> Path:
    """Make `run_dir`/report.html from whatever the run directory holds, and return its path."""
    path = RunDir(run_dir).report
    _write(path, render(read_run(run_dir)))
    return path


def write_card(run_dir: Path, folder: Path) -> Path:
    """Make `folder`/README.md, the model card, from what the run directory holds; `folder` is where the weights lie.

    RunDirectoryError: there is no such folder. It is not made here, since its being there means that training is done.
    """
    if not folder.is_dir():
        raise RunDirectoryError(f"{folder}: no model lies there that a card could describe; train first")
    path = folder / "README.md"
    _write(path, model_card(read_run(run_dir)))
    return path


def _write(path: Path, text: str) -> None:
    write_text(path, text.encode(errors="replace").decode())  # half a surrogate pair from JSON has no UTF-8
