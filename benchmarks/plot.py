"""Draws what loss.py, step.py and scaling.py have left in benchmarks/results.

python -m benchmarks.plot [--into FOLDER]    writes FOLDER/speed.svg and speed.png; panels without results are left out
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from benchmarks.measure import HERE, line_through
from benchmarks.step import BARE

HATCHES = ("", "//", "..", "xx", "\\\\", "oo")
"""So that bars differ without colours."""

STYLES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))
Cells = Mapping[str, Any]


def loss_memory(axes: Any, cells: Cells) -> None:
    """Peak by way, at each vocabulary."""
    found = _grouped(
        cells, r"memory: ([\d,]+) pieces, [\d,]+ tokens, fp32, JSD ½, (.+)", lambda cell: cell["bytes"] / 1e6
    )
    _bars(axes, dict(sorted(found.items(), key=lambda item: int(item[0].replace(",", "")))), "MB")
    axes.set(title="Peak of the loss stage\nfp32, JSD ½", xlabel="pieces", yscale="log")


def loss_tokens(axes: Any, cells: Cells) -> None:
    """Time against tokens, and the line."""
    points = sorted(
        (_number(name, r"(\d[\d,]*) tokens"), cell["seconds"]["ours"])
        for name, cell in cells.items()
        if name.startswith("along tokens, 8 responses")
    )
    tokens, seconds = zip(*points, strict=True)
    slope, intercept, r2 = line_through(tokens, seconds)
    axes.plot(tokens, seconds, "ko", label="measured")
    axes.plot(tokens, [intercept + slope * n for n in tokens], "k--", label=f"line, R² = {r2:.4f}")
    axes.set(title="Time of the loss stage\n8 responses that grow", xlabel="tokens", ylabel="seconds", ylim=(0, None))
    axes.legend(frameon=False)


def steps(axes: Any, cells: Cells) -> None:
    """Ours, TRL's and the bare passes."""
    found: dict[str, dict[str, float]] = {}
    for name, cell in cells.items():
        if name.startswith("time: "):
            times, shape = cell["seconds"], name.removeprefix("time: ").replace(", V", "\nV")
            found[shape] = {
                "TRL, JSD ½": times["TRL, JSD ½"],
                "ours, JSD ½": times["ours, JSD ½"],
                "bare, JSD ½": sum(times[part] for part in BARE["gkd"]),
                "ours, all three": times["ours, all three"],
                "bare, all three": sum(times[part] for part in BARE["all"]),
            }
    _bars(axes, found, "seconds")
    axes.set(title="A step without its optimizer\nbatch 8, 32 + 64 tokens")


def scaling(axes: Any, cells: Cells) -> None:
    """Step time against what is changed, both relative to the first."""
    found = _grouped(cells, r"step: (\w+) (\d+)", lambda cell: cell["seconds"])
    for (marker, line), (changed, by_value) in zip(STYLES, found.items(), strict=False):
        values = sorted(by_value, key=int)
        first = values[0]
        axes.plot(
            [int(value) / int(first) for value in values],
            [by_value[value] / by_value[first] for value in values],
            marker=marker, linestyle=line, color="black", fillstyle="none", label=changed,
        )  # fmt: skip
    axes.set(
        title="Cost of a step", xlabel="times the first", ylabel="seconds, times the first", xscale="log", yscale="log"
    )
    axes.legend(frameon=False)


PANELS: dict[Callable[[Any, Cells], None], tuple[str, str]] = {
    loss_memory: ("loss", "memory: "),
    loss_tokens: ("loss", "along tokens, 8 responses"),
    steps: ("step", "time: "),
    scaling: ("scaling", "step: "),
}
"""And whose results they show: the script, and how the names of its cells begin."""


def _grouped(cells: Cells, pattern: str, value: Callable[[Any], float]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, cell in cells.items():
        if match := re.fullmatch(pattern, name):
            found.setdefault(match[1], {})[match[2]] = value(cell)
    return found


def _bars(axes: Any, found: Mapping[str, Mapping[str, float]], unit: str) -> None:
    """Groups of bars: {group: {way: value}}."""
    ways = list(dict.fromkeys(way for group in found.values() for way in group))
    width = 0.8 / len(ways)
    for i, way in enumerate(ways):
        at = [n + (i - (len(ways) - 1) / 2) * width for n, group in enumerate(found.values()) if way in group]
        values = [group[way] for group in found.values() if way in group]
        shade = str(0.95 - 0.75 * i / max(len(ways) - 1, 1))
        axes.bar(at, values, width, label=way, color=shade, edgecolor="black", hatch=HATCHES[i % len(HATCHES)])
    axes.set_xticks(range(len(found)), list(found))
    axes.set_ylabel(unit)
    axes.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def _number(name: str, pattern: str) -> int:
    match = re.search(pattern, name)
    assert match is not None, name
    return int(match[1].replace(",", ""))


def main(folder: Path) -> None:
    files = {name: folder / f"{name}.json" for name, _ in PANELS.values()}
    cells = {name: json.loads(file.read_text())["cells"] for name, file in files.items() if file.is_file()}
    drawn = [
        (panel, cells[name])
        for panel, (name, prefix) in PANELS.items()
        if any(cell.startswith(prefix) for cell in cells.get(name, {}))
    ]
    if not drawn:
        raise SystemExit(f"no results in {folder}: call loss.py, step.py or scaling.py first")
    figure, axes = plt.subplots(1, len(drawn), figsize=(5 * len(drawn), 5), squeeze=False, layout="constrained")
    for place, (panel, of) in zip(axes[0], drawn, strict=True):
        panel(place, of)
    for kind in ("svg", "png"):
        figure.savefig(folder / f"speed.{kind}", dpi=110)
        print(folder / f"speed.{kind}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=HERE / "results")
    main(parser.parse_args().into)
