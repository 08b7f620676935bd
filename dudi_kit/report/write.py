"""Write what a run directory ends with: report.html, and the card of the final model."""

from pathlib import Path

from dudi_kit.evaluate.scores import write_atomically
from dudi_kit.report.card import model_card
from dudi_kit.report.html import render
from dudi_kit.report.read import read_run


def write_report(run_dir: Path) -> Path:
    """Make `run_dir`/report.html from whatever the run directory holds, and return its path."""
    path = run_dir / "report.html"
    write_atomically(path, render(read_run(run_dir)))
    return path


def write_card(run_dir: Path, folder: Path) -> Path:
    """Make `folder`/README.md, the model card, from what the run directory holds; `folder` is where the weights lie."""
    path = folder / "README.md"
    write_atomically(path, model_card(read_run(run_dir)))
    return path
