"""`dudi-kit evaluate verify`: SEA-HELM itself scores what a model answered."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dudi_kit.cli.app import Panel, command
from dudi_kit.cli.runs import stations

Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Run directory, or where `evaluate` wrote evaluation/.", show_default=False),
]
Home = Annotated[
    Path, typer.Option("--seahelm-home", metavar="DIR", help="Your checkout of SEA-HELM.", show_default=False)
]
Python = Annotated[
    str, typer.Option("--seahelm-python", metavar="PYTHON", help="Python of an environment that can run SEA-HELM.")
]
Model = Annotated[
    Literal["after", "before", "teacher"], typer.Option("--model", help="Which model of the run; the student after.")
]


@command("evaluate verify", Panel.RUNS)
def verify(run: Run, seahelm_home: Home, seahelm_python: Python = "python3", model: Model = "after") -> None:
    """Have SEA-HELM score a model's answers again, and print the largest difference from our scores."""
    if not seahelm_home.is_dir():
        raise typer.BadParameter(f"no such folder: {seahelm_home}", param_hint="--seahelm-home")
    stations()  # told to be quiet
    from dudi_kit.pipeline.verify import verify as compare_scores

    compare_scores(run, seahelm_home, seahelm_python, model)
