"""What the loop logs: every signal on its own, over all languages and by language; those that ask the teacher also by
the source of the demonstration that it read.

Sums and counts are gathered on the device and read out only when a line is written, so that logging does not make the
step wait. A mean is Σ total / Σ count over all rows, ranks and steps since the last line.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from dudi_kit.data.sending import sent
from dudi_kit.plan.layout import write_text
from dudi_kit.plan.rows import ShownSource
from dudi_kit.signals.result import SignalResult, Sums
from dudi_kit.train.builders import OF_TEACHER

SHOWN: tuple[ShownSource, ...] = get_args(ShownSource)


class Window:
    """Sums since the last logged line: name → [sources, languages, 2], the columns being total and count."""

    def __init__(self, languages: Sequence[str], device: torch.device) -> None:
        self.languages = tuple(languages)
        self.device = device
        self._sums: dict[str, Tensor] = {}
        self._steps, self._rests = 0, Counter[str]()
        self._shape = (len(SHOWN), len(self.languages), 2)

    def add(
        self, name: str, sums: Sums, languages: Sequence[str], sources: Sequence[ShownSource] | None = None
    ) -> None:
        """Add one quantity's rows. languages, sources: of each row; without sources, no demonstration was shown."""
        cells = [
            SHOWN.index(source) * len(self.languages) + self.languages.index(code)
            for code, source in zip(languages, sources or ["none"] * len(languages), strict=True)
        ]
        cell_B = sent(cells, self.device, torch.long)
        values = sent(torch.stack([sums.total_B.detach(), sums.count_B], dim=-1), self.device, torch.float64)
        table = self._sums.setdefault(name, torch.zeros(self._shape, dtype=torch.float64, device=self.device))
        table.view(-1, 2).index_add_(0, cell_B, values)

    def add_signal(
        self,
        name: str,
        result: SignalResult,
        languages: Sequence[str],
        sources: Sequence[ShownSource] | None = None,
    ) -> None:
        """Add a signal's loss and metrics. sources: of the demonstrations, where the signal asks the teacher."""
        self.add(name, result, languages, sources)
        for metric, sums in result.metrics.items():
            self.add(f"{name}.{metric}", sums, languages, sources)

    def add_step(self, resting: Iterable[str]) -> None:
        """Count an optimizer step, in which these signals were not active."""
        self._steps += 1
        self._rests.update(resting)

    def read_out(self) -> dict[str, Tensor]:
        """The sums over all ranks, on the CPU; starts the next window. Every rank must call it."""
        names = sorted(self._sums)
        stacked = torch.stack([self._sums[name] for name in names])
        if dist.is_initialized():
            dist.all_reduce(stacked)
        self._sums.clear()
        return dict(zip(names, stacked.cpu(), strict=True))

    def summary(self, sums: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Any]:
        """The window as a line of metrics.jsonl: `loss` and each signal's mean, by language, with its metrics.

        A signal's mean is over the steps in which it was active, and in `loss` it counts for its share of the steps.
        """
        active = {name: weight for name, weight in weights.items() if name in sums}
        signals = {name: self._signal(name, sums) | {"weight": weight} for name, weight in active.items()}
        shares = {name: 1 - self._rests[name] / max(self._steps, 1) for name in signals}
        self._steps, self._rests = 0, Counter()
        loss = sum(s["loss"] * s["weight"] * shares[name] for name, s in signals.items())
        line: dict[str, Any] = {"loss": loss, "signals": signals}
        rollouts = {
            name.partition(".")[2]: self._means(table.sum(0))
            for name, table in sums.items()
            if name.startswith("rollout.")
        }
        return line | ({"rollouts": rollouts} if rollouts else {})

    def _signal(self, name: str, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        means_of = self._means_by_source if name in OF_TEACHER else lambda table: self._means(table.sum(0))
        means = means_of(sums[name])
        prefix = f"{name}."
        metrics = {key.removeprefix(prefix): means_of(table) for key, table in sums.items() if key.startswith(prefix)}
        return {"loss": means.pop("all"), "count": int(sums[name][..., 1].sum()), **means, "metrics": metrics}

    def _means_by_source(self, table: Tensor) -> dict[str, Any]:
        """The means, and under `by_source` those of the rows whose teacher read a demonstration of each source."""
        by_source = {
            source: self._means(part) for source, part in zip(SHOWN, table, strict=True) if part[:, 1].sum() > 0
        }
        return self._means(table.sum(0)) | {"by_source": by_source}

    def _means(self, table: Tensor) -> dict[str, Any]:
        """table: [languages, 2]."""
        total, count = table.sum(0).tolist()
        by_language = {code: (t / n) for code, (t, n) in zip(self.languages, table.tolist(), strict=True) if n > 0}
        return {"all": total / max(count, 1), "by_language": by_language}


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def cut_after(path: Path, step: int) -> None:
    """Drop the lines after `step`, and a last one that a kill cut short: a resumed run writes them again."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")  # a kill may cut a line inside a letter
    kept = [line for line in text.splitlines() if _step_of(line) <= step]
    write_text(path, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
