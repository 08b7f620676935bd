"""What a person sees while training: a bar with rate and time left; outside a terminal, a line for each logged step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dudi_kit.console import notice, out
from dudi_kit.plan.schema import Plan
from dudi_kit.recipe.schema.evaluation import BITS
from dudi_kit.train.surroundings import Progress as Report


@contextmanager
def training_progress(plan: Plan, *, show: bool) -> Iterator[Report]:
    """The function that the loop calls after each step; silent in all processes but the first."""
    if not show:
        yield lambda done, line: None
        return
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("·"),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.fields[loss]}"),
        console=out,
        disable=not out.is_terminal,
        expand=True,
    )
    with bar:
        task = bar.add_task(plan.name, total=plan.steps, rate="", loss="")
        spikes = 0

        def report(done: int, line: dict[str, Any] | None) -> None:
            nonlocal spikes
            bar.update(task, completed=done)
            if line is not None and "evaluation" in line:
                out.print(_scored(plan, line), highlight=False, soft_wrap=True)
            elif line is not None:
                spikes += "spikes" in line
                bar.update(task, loss=f"loss {line['loss']:.3f}{_counted(spikes)}", rate=_rate(line))
                if not out.is_terminal:
                    out.print(_plain(plan, line), highlight=False, soft_wrap=True)

        yield report
        if spikes:
            notice(f"{plan.name}: {spikes:,} logged lines with a spike, see `spikes` in metrics.jsonl", style="yellow")


def _counted(spikes: int) -> str:
    return f" · {spikes:,} spike{'s' * (spikes > 1)}" if spikes else ""


def _plain(plan: Plan, line: dict[str, Any]) -> str:
    signals = "  ".join(f"{name} {signal['loss']:.3f}" for name, signal in line["signals"].items())
    spikes = "".join(f"  spike: {name}, {far:.1f} deviations" for name, far in line.get("spikes", {}).items())
    return f"{plan.name}  step {line['step']}/{plan.steps}  loss {line['loss']:.3f}  {signals}  {_rate(line)}{spikes}"


def _scored(plan: Plan, line: dict[str, Any]) -> str:
    """Means over the languages: each task's own metric, and whether this is the best step so far."""
    scores = line["evaluation"]
    means = {BITS: scores["bits_per_byte"]} if "bits_per_byte" in scores else {}
    means |= {name: next(iter(figures.values())) for name, figures in scores["tasks"].items()}
    shown = "  ".join(f"{name} {mean['all']:.3f}" for name, mean in means.items()) or "nothing could be scored"
    lacking = sum(len(languages) for languages in scores.get("missing", {}).values())
    missing = f"  ({lacking:,} missing)" if lacking else ""
    best = "  best so far" if scores.get("best", {}).get("step") == line["step"] else ""
    return f"{plan.name}  step {line['step']}/{plan.steps}  {shown}{missing}{best}"


def _rate(line: dict[str, Any]) -> str:
    """Response tokens, of y and of ỹ, in a second."""
    speed = line["tokens_per_second"]
    return f"{speed:,.0f} tok/s" if speed >= 10 else f"{speed:.1f} tok/s"
