"""Pictures of a whole evaluation: languages on a radar, competencies by languages as a map of numbers.

Legible in black and white: models differ in dash and marker, cells in grey with their number written in them. What is
missing is an empty cell or a gap, never 0.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.projections.polar import PolarAxes

from dudi_kit.recipe.schema.evaluation import Subject
from dudi_kit.report.plots import GREY, figure_of, styled, svg_of

LINE_STYLE: dict[Subject, dict[str, Any]] = {
    "teacher": {"color": "#222222", "linestyle": ":", "marker": "s"},
    "before": {"color": "#b26a00", "linestyle": "--", "marker": "^"},
    "after": {"color": "#0072b2", "linestyle": "-", "marker": "o"},
}
FEWEST_SPOKES = 3
LEAST_RADIUS = 10.0
"""Per cent: scores that are all near 0 are not blown up."""


class Cell(NamedTuple):
    """A score in per cent."""

    value: float
    interval: tuple[float, float] | None
    floored: bool = False
    """A score in it lies below 0, the floor: its interval would be too narrow."""


@styled
def language_radar(scores: Mapping[Subject, Mapping[str, float]]) -> str | None:
    """One spoke for each language, one line for each model; None for fewer than three languages.

    scores: model → language → score from 0 to 100. A line has a gap where its model has no score.
    """
    languages = sorted({language for values in scores.values() for language in values})
    if len(languages) < FEWEST_SPOKES:
        return None
    figure = figure_of(4.6, 4.2)
    axis = figure.add_subplot(projection="polar")
    assert isinstance(axis, PolarAxes)
    angles = np.linspace(0, 2 * math.pi, len(languages), endpoint=False)
    for subject, values in scores.items():
        radii = [values.get(language, math.nan) for language in languages]
        axis.plot([*angles, angles[0]], [*radii, radii[0]], label=subject, markersize=4, **LINE_STYLE[subject])
    axis.set_theta_offset(math.pi / 2)
    axis.set_theta_direction(-1)
    axis.set_xticks(angles, languages, parse_math=False)
    axis.set_ylim(bottom=0, top=max(axis.get_ylim()[1], LEAST_RADIUS))
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.tick_params(axis="y", labelsize="small", labelcolor=GREY)
    figure.legend(loc="outside upper left", ncols=len(scores), frameon=False)
    return svg_of(figure)


@styled
def competency_map(cells: Mapping[str, Mapping[str, Cell]]) -> str | None:
    """Competencies down, languages across; the darker, the higher, with the 95 % interval below each number.

    cells: competency → language → score. None where there is nothing to show.
    """
    languages = sorted({language for row in cells.values() for language in row})
    if not languages:
        return None
    figure = figure_of(1.9 + 0.78 * len(languages), 0.7 + 0.5 * len(cells))
    axis = figure.add_subplot()
    values = [
        [row[language].value if language in row else math.nan for language in languages] for row in cells.values()
    ]
    edges = (np.arange(len(languages) + 1) - 0.5, np.arange(len(cells) + 1) - 0.5)
    axis.pcolormesh(*edges, np.array(values), cmap="Greys", vmin=0, vmax=130, edgecolor="#ffffff")  # never quite black
    axis.invert_yaxis()
    for y, row in enumerate(cells.values()):
        for x, language in enumerate(languages):
            _write(axis, x, y, row.get(language))
    axis.set_xticks(range(len(languages)), languages, parse_math=False)
    axis.set_yticks(range(len(cells)), list(cells), parse_math=False)
    axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)
    return svg_of(figure)


def _write(axis: Axes, x: int, y: int, cell: Cell | None) -> None:
    if cell is None:
        axis.text(x, y, "–", ha="center", va="center", color=GREY)
        return
    ink = "#ffffff" if cell.value > 70 else "#111111"
    below = "floored" if cell.floored else "{:.0f}–{:.0f}".format(*cell.interval) if cell.interval else ""
    axis.text(x, y - (0.12 if below else 0), f"{cell.value:.1f}", ha="center", va="center", color=ink)
    axis.text(x, y + 0.24, below, ha="center", va="center", color=ink, fontsize=6.5)
