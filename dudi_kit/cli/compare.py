"""`dudi-kit compare`: runs side by side, with paired intervals."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dudi_kit import console
from dudi_kit.cli.app import Panel, command

if TYPE_CHECKING:
    from dudi_kit.report.across import Across, Standing

Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN…", help="Run directories; of a single one, its models are compared.")
]
Model = Annotated[
    Literal["after", "before", "teacher"], typer.Option("--model", help="Which model of each run; the student after.")
]
Format = Annotated[Literal["text", "json"], typer.Option("--format", help="For people, or for programs.")]


@command("compare", Panel.RUNS)
def compare(runs: Runs, model: Model = "after", format: Format = "text") -> None:
    """Compare evaluated runs item by item: scores, paired differences from the first, intervals and p-values."""
    from dudi_kit.report.across import compare_runs, sides_of

    found = compare_runs(sides_of(runs, model))
    if format == "json":
        print(json.dumps(dataclasses.asdict(found), indent=2, ensure_ascii=False, default=str))  # noqa: T201
    else:
        _show(found)


def _show(found: "Across") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task")
    table.add_column("items", justify="right")
    for side in found.sides:
        table.add_column(Text(side.label), justify="right")
    for line in found.lines:
        cells = [Text(_standing(standing)) for standing in line.standings]
        table.add_row(Text(f"{line.task} {line.language}"), f"{line.items:,}", *cells)
    console.out.print(table)
    console.say("Percent, with 95 % intervals over items; below it the paired difference from the first column.", "dim")
    if any(line.normalised for line in found.lines):
        names = dict.fromkeys(line.task for line in found.lines if line.normalised)
        console.say(f"0 is guessing, 100 all right, without a floor: {', '.join(names)}.", "dim")
    console.say("* p < 0.05, ** p < 0.01, *** p < 0.001, adjusted over all that are shown (Holm).", "dim")
    for remark in found.remarks:
        console.notice(remark)


def _standing(standing: "Standing") -> str:
    value = f"{standing.value:.1f}"
    if standing.interval:
        value += f" ({standing.interval.low:.1f} … {standing.interval.high:.1f})"
    if standing.difference is None:
        return value.replace("-", "−")
    assert standing.p is not None, "every difference has a p"
    stars = "*" * sum(standing.p < level for level in (0.05, 0.01, 0.001))
    bounds = standing.difference.interval
    around = f" ({bounds.low:+.1f} … {bounds.high:+.1f})" if bounds else ""
    return f"{value}\n{standing.difference.value:+.1f}{around}{stars}".replace("-", "−")
