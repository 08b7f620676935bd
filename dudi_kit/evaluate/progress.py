"""How evaluation says how far it is: a `Track` opens a bar and hands out the function that moves it on."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as Bar
from rich.text import Text

Advance = Callable[[int], None]
"""Called with the number of rows that were finished since the last call."""

Track = Callable[[str, int], AbstractContextManager[Advance]]
"""(description, rows in all) → a context in which to advance."""


@contextmanager
def silent(description: str, total: int) -> Iterator[Advance]:
    """A `Track` that shows nothing."""
    yield lambda rows: None


def rich_track(console: Console) -> Track:
    """A `Track` that draws a bar with rows per second and the time left."""

    @contextmanager
    def track(description: str, total: int) -> Iterator[Advance]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task(description, total=total)
            yield lambda rows: progress.advance(bar, rows)

    return track


class _Rate(ProgressColumn):
    def render(self, task: Bar) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} rows/s", style="progress.data.speed")
