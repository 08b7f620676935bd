"""Sudden rises of a loss or of the gradient norm: flagged, counted, and left to people to judge.

The rule is robust, so that one spike does not hide the next, nor a slow rise look like one (Hampel's rule): a value is
a spike when it lies more than `FAR` deviations above the median of the last `LINES` logged lines. The deviation is
1.4826 · MAD, which is σ for normal noise, or `LEAST` of the median where that is more, so that a curve that lies still
has no spikes. With fewer than `FEWEST` lines before it nothing is flagged.
"""

import json
import statistics
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LINES, FEWEST = 50, 10
FAR, LEAST = 6.0, 0.02
SIGMA = 1.4826


class Spikes:
    """The recent past of each watched number."""

    def __init__(self) -> None:
        self._past: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LINES))

    def remember(self, metrics: Path) -> None:
        """Go on where the lines of an earlier start end."""
        if metrics.exists():
            for line in metrics.read_text(encoding="utf-8").splitlines():
                self.look(json.loads(line))

    def look(self, line: Mapping[str, Any]) -> dict[str, float]:
        """The numbers of this line that are spikes, in deviations above the median before it: {"loss": 7.3}."""
        return {name: far for name, value in _watched(line) if (far := self._far_above(name, value)) > FAR}

    def _far_above(self, name: str, value: float) -> float:
        past = self._past[name]
        far = 0.0
        if len(past) >= FEWEST:
            middle = statistics.median(past)
            spread = statistics.median(abs(each - middle) for each in past)
            deviation = max(SIGMA * spread, LEAST * abs(middle))
            far = (value - middle) / deviation if deviation > 0 else 0.0
        past.append(value)
        return far


def _watched(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if "loss" not in line:  # scores of an evaluation
        return
    yield "loss", line["loss"]
    if line.get("grad_norm") is not None:
        yield "grad_norm", line["grad_norm"]
    for name, signal in line["signals"].items():
        yield f"signals/{name}/loss", signal["loss"]
