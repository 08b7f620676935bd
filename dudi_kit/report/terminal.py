"""The scores in the terminal: one table for each task and metric, readable at 80 columns."""

from collections.abc import Mapping

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dudi_kit.evaluate.scores import Scores
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.schema.evaluation import Subject
from dudi_kit.report.compare import MEAN, Comparison, Row, compare, number, without_table
from dudi_kit.report.read import SUBJECTS


def scores_table(scores: Mapping[Subject, Scores]) -> Group:
    """For `Console.print`: a table for each task and metric, then bits per byte; a dash is a missing score."""
    tables = [_table(comparison) for comparison in compare(scores)]
    untold = [Text(remark) for remark in without_table(scores)]
    return Group(*tables, *untold) if tables or untold else Group(Text("No scores: nothing was evaluated."))


def language_name(code: str) -> str:
    """`th Thai`; what is no language's code stays as it is."""
    return f"{code} {LANGUAGES[code].name}" if code in LANGUAGES else code


def _table(comparison: Comparison) -> Table:
    caption = Text("\n".join(comparison.remarks))  # Text, not str: nothing from the data is read as markup
    title = Text(f"\n{comparison.title}")
    table = Table(
        title=title, title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("language")
    for subject in SUBJECTS:
        table.add_column(subject, justify="right")
    table.add_column("after − before", justify="right")
    for row in comparison.rows:
        if row.language == MEAN:
            table.add_section()
        table.add_row(language_name(row.language), *_cells(row, comparison.digits))
    return table


def _cells(row: Row, digits: int) -> list[Text]:
    cells = []
    for subject in SUBJECTS:
        score = row.scores.get(subject)
        text = number(score.value if score else None, digits)
        cells.append(Text(text, style="bold" if subject in row.best else ""))
    return [*cells, Text(number(row.change, digits, signed=True))]
