"""Pictures as inline SVG texts: small, without scripts, and legible in black and white.

Lines differ in dash and marker, bars in hatching, so that colour (Okabe and Ito's palette) is never needed.
"""

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import pairwise
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.schema.evaluation import Subject
from dudi_kit.report.compare import MEAN, Comparison
from dudi_kit.report.read import SUBJECTS, keys_at, series
from dudi_kit.report.transfer import OVERLAP

P = ParamSpec("P")
Points = Sequence[tuple[int, float]]

MOST_POINTS = 100
"""Longer curves are drawn as the means of this many equal stretches of steps."""

DARK, GREY = "#0b3c5d", "#9a9a9a"
BAR_STYLE: dict[Subject, dict[str, Any]] = {
    "teacher": {"facecolor": "#ffffff", "hatch": "", "edgecolor": "#222222"},
    "before": {"facecolor": "#e69f00", "hatch": "////", "edgecolor": "#222222"},
    "after": {"facecolor": "#0072b2", "hatch": "", "edgecolor": "#222222"},
}
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, and in the reader's own fonts
    "svg.hashsalt": "dudi-kit",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 8.5,
    "hatch.linewidth": 0.6,
}


def styled(draw: Callable[P, str | None]) -> Callable[P, str | None]:
    """Draw under our settings and leave matplotlib's global ones as they were."""

    @wraps(draw)
    def under_our_settings(*args: P.args, **kwargs: P.kwargs) -> str | None:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return under_our_settings


@styled
def loss_curves(steps: list[dict[str, Any]]) -> str | None:
    """The objective, each signal, gradients, learning rate, speed and memory over the steps; None without any."""
    panels: dict[str, Points] = {"objective (loss)": series(steps, "loss")}
    for signal in keys_at(steps, "signals"):
        panels[f"{signal.replace('_', ' ')} (nats)"] = series(steps, "signals", signal, "loss")
    panels["gradient norm"] = series(steps, "grad_norm")
    for signal in keys_at(steps, "signals"):
        panels[f"gradient of {signal.replace('_', ' ')}"] = series(steps, "signals", signal, "gradient", "norm")
    panels["learning rate"] = series(steps, "learning_rate")
    panels["tokens per second"] = series(steps, "tokens_per_second")
    for name, title in {"resident_bytes": "main memory (GB)", "gpu_peak_bytes": "GPU memory (GB)"}.items():
        panels[title] = [(step, size / 1e9) for step, size in series(steps, "system", name, "max")]
    return _small_multiples(panels)


@styled
def measure_curves(steps: list[dict[str, Any]]) -> str | None:
    """What rollouts and signals measured beside their losses, over all languages; None without any."""
    panels: dict[str, Points] = {
        f"rollouts: {name}": series(steps, "rollouts", name, "all") for name in keys_at(steps, "rollouts")
    }
    for signal in keys_at(steps, "signals"):
        for name in keys_at(steps, "signals", signal, "metrics"):
            panels[f"{signal}: {name}"] = series(steps, "signals", signal, "metrics", name, "all")
    return _small_multiples({title.replace("_", " "): points for title, points in panels.items()})


@styled
def language_curves(steps: list[dict[str, Any]], signal: str) -> str | None:
    """One signal's loss: a panel for each language, its curve dark before the mean of all languages in grey."""
    path = ("signals", signal)
    return _by_language(steps, (*path, "by_language"), series(steps, *path, "loss"))


@styled
def transfer_curves(steps: list[dict[str, Any]], signal: str) -> str | None:
    """One signal's overlap of likely pieces: a panel for each language, as above."""
    path = ("signals", signal, "metrics", OVERLAP)
    return _by_language(steps, (*path, "by_language"), series(steps, *path, "all"))


@styled
def score_curves(steps: list[dict[str, Any]], path: tuple[str, ...], best: int | None) -> str | None:
    """One score while the student trained: a panel for each language, as above, the best step as a dotted line."""
    return _by_language(steps, (*path, "by_language"), series(steps, *path, "all"), marked=best)


def _by_language(
    steps: list[dict[str, Any]], path: tuple[str, ...], overall: Points, marked: int | None = None
) -> str | None:
    curves = {language: series(steps, *path, language) for language in sorted(keys_at(steps, *path))}
    shown = {language: points for language, points in curves.items() if points}
    if not shown:
        return None
    figure, axes = _panels(len(shown), shared=True)
    for axis, (language, points) in zip(axes, shown.items(), strict=True):
        if overall:
            axis.plot(*zip(*thinned(overall), strict=True), color=GREY, linestyle="--", linewidth=1)
        _curve(axis, points)
        if marked is not None:
            axis.axvline(marked, color=DARK, linestyle=":", linewidth=1)
        name = LANGUAGES[language].name if language in LANGUAGES else ""
        axis.set_title(f"{language} {name}", loc="left", parse_math=False)
    return svg_of(figure)


@styled
def score_bars(comparison: Comparison) -> str | None:
    """One metric by language: grouped bars of teacher, before and after, with their 95 % intervals where known."""
    rows = [row for row in comparison.rows if row.scores]
    subjects = [subject for subject in SUBJECTS if any(subject in row.scores for row in rows)]
    if not rows:
        return None
    figure = figure_of(5.8, 3.1)
    axis = figure.add_subplot()
    _tidy(axis)
    width = 0.8 / len(subjects)
    for place, subject in enumerate(subjects):
        positions = [
            i + (place - (len(subjects) - 1) / 2) * width for i, row in enumerate(rows) if subject in row.scores
        ]
        scores = [row.scores[subject] for row in rows if subject in row.scores]
        axis.bar(
            positions, [score.value for score in scores], width, label=subject, linewidth=0.7, **BAR_STYLE[subject]
        )
        known = [(x, *score.interval) for x, score in zip(positions, scores, strict=True) if score.interval is not None]
        if known:
            axis.vlines(*zip(*known, strict=True), color="#222222", linewidth=0.9)
    axis.set_xticks(range(len(rows)), [row.language for row in rows], parse_math=False)
    axis.tick_params(axis="x", length=0)
    if rows[-1].language == MEAN and len(rows) > 1:
        axis.axvline(len(rows) - 1.5, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_ylabel(comparison.unit if comparison.higher_is_better else "bits")
    figure.legend(loc="outside upper left", ncols=len(subjects), frameon=False)
    return svg_of(figure)


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """At most `most` points: the means of equal stretches of a longer curve."""
    if len(points) <= most:
        return points
    edges = [round(i * len(points) / most) for i in range(most + 1)]
    stretches = [points[a:b] for a, b in pairwise(edges)]
    return [(s[len(s) // 2][0], sum(value for _, value in s) / len(s)) for s in stretches]


def _small_multiples(panels: dict[str, Points]) -> str | None:
    shown = {title: points for title, points in panels.items() if points}
    if not shown:
        return None
    figure, axes = _panels(len(shown), shared=False)
    for axis, (title, points) in zip(axes, shown.items(), strict=True):
        _curve(axis, points)
        axis.set_title(title, loc="left", parse_math=False)
    return svg_of(figure)


def _curve(axis: Axes, points: Points) -> None:
    marker = "o" if len(points) < 12 else None
    axis.plot(*zip(*thinned(points), strict=True), color=DARK, linewidth=1.3, marker=marker, markersize=3)


def figure_of(width: float, height: float) -> Figure:
    """Inches. A Figure of its own, never pyplot's: nothing global is touched."""
    return Figure(figsize=(width, height), layout="constrained")


def _panels(count: int, *, shared: bool) -> tuple[Figure, list[Axes]]:
    """A grid of small panels, up to four in a row, and its first `count` axes."""
    columns = min(4, count)
    lines = -(-count // columns)
    figure = figure_of(2.25 * columns if columns > 1 else 4.5, 1.7 * lines + 0.2)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=shared)
    axes = list(grid.flat)
    for axis in axes[:count]:
        _tidy(axis)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.tick_params(labelbottom=True)
    for axis in axes[count:]:
        axis.set_visible(False)
    figure.supxlabel("step", fontsize="medium")
    return figure, axes[:count]


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)


def svg_of(figure: Figure) -> str:
    """The figure as an <svg> element that fits the width of its place; the same input gives the same text."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = _slim(buffer.getvalue())
    width = re.search(r'^<svg[^>]*? width="([\d.]+)pt"', svg)
    assert width is not None, "matplotlib writes the width of its SVG"
    head, body = svg.split(">", 1)
    head = re.sub(r' (?:width|height)="[\d.]+pt"', "", head)
    return f'{head} role="img" style="width:100%;max-width:{float(width.group(1)) * 4 / 3:.0f}px">{body}'


def _slim(svg: str) -> str:
    """The <svg> element without metadata, names of groups (double in one page) and digits below a tenth of a point."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r' (?:d|x|y)="[^"]*"', lambda place: re.sub(r"(\d\.\d)\d+", r"\1", place[0]), svg)
    return re.sub(r"\s*\n\s*", " ", svg)
