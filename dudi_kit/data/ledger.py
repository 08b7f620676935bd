"""Nothing is silent: whatever is dropped, cut, filtered or replaced is counted here, by language, and reported.

The ledger is plain data: rooms count into it, the plan, the log and the report print it.
"""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Counts of events by language, with the first few cases of each for people to look up."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(event, language) → how often."""

    cases: dict[str, list[str]] = field(default_factory=dict)
    """event → the first few cases, as `file:row` texts."""

    kept_cases: int = 3

    def count(self, event: str, language: str, case: str | None = None, times: int = 1) -> None:
        """Add `times` to an event, such as `row without a response`."""
        self.counts[event, language] += times
        cases = self.cases.setdefault(event, [])
        if case is not None and len(cases) < self.kept_cases:
            cases.append(case)

    def lines(self) -> list[str]:
        """One line for each event, with its languages and first cases; sorted, so that runs can be compared."""
        events = sorted({event for event, _ in self.counts})
        return [self._line(event) for event in events]

    def _line(self, event: str) -> str:
        by_language = {language: n for (e, language), n in sorted(self.counts.items()) if e == event}
        languages = ", ".join(f"{language} {n:,}" for language, n in by_language.items())
        cases = f"; first: {', '.join(self.cases[event])}" if self.cases.get(event) else ""
        return f"{event}: {sum(by_language.values()):,} ({languages}){cases}"

    def as_json(self) -> dict[str, dict[str, int]]:
        """{event: {language: count}}."""
        table: dict[str, dict[str, int]] = {}
        for (event, language), n in sorted(self.counts.items()):
            table.setdefault(event, {})[language] = n
        return table
