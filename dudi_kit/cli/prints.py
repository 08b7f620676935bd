"""How findings, recipes and explanations look in a terminal. Plain text goes in, never rich's markup."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dudi_kit import console
from dudi_kit.console import visible
from dudi_kit.pipeline.shelf import Card
from dudi_kit.recipe.diagnostics import LONGEST_LINE, Finding, cells, errors
from dudi_kit.recipe.explain import NEEDED, Explanation
from dudi_kit.recipe.migrate import Migrated
from dudi_kit.recipe.nested import Looked
from dudi_kit.recipe.sarif import sarif
from dudi_kit.recipe.show import Comparison, Shown

GUTTER = 8
"""Cells in front of a source line."""

WIDEST = 48
"""Cells up to which comments of `show` stand in one column; beside a longer line, they come right after it."""


def table(rows: Sequence[Sequence[str]], styles: Sequence[str], indent: int = 2) -> None:
    """Columns as wide as the terminal allows; the last one is wrapped at words."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for column, style in enumerate(styles, start=1):
        grid.add_column(style=style, no_wrap=column < len(styles))
    for row in rows:
        grid.add_row(*(Text(visible(cell)) for cell in row))
    console.out.print(Padding(grid, (0, 0, 0, indent), expand=False), soft_wrap=False)


def _once(looked: Sequence[Looked]) -> Iterator[tuple[Looked, list[Finding]]]:
    """Each file with its findings, but for those that were told before: two files may have one parent."""
    told: set[Finding] = set()
    for each in looked:
        yield each, [finding for finding in each.findings if finding not in told]
        told |= set(each.findings)


def as_json(looked: Sequence[Looked], *, as_sarif: bool) -> None:
    """Findings for programs."""
    found = [(each.file, finding) for each, findings in _once(looked) for finding in findings]
    content = sarif(found) if as_sarif else [finding.as_json() for _, finding in found]
    print(json.dumps(content, indent=2, ensure_ascii=False))  # noqa: T201


def each(found: Sequence[Finding]) -> None:
    """Findings for people."""
    for finding in found:
        _finding(finding)


def findings(looked: Sequence[Looked], *, as_github: bool) -> None:
    """Findings for people or for annotations, and a verdict on each file."""
    for file, fresh in _once(looked):
        for finding in fresh:
            if as_github:
                print(finding.as_github())  # noqa: T201
            else:
                _finding(finding)
        _verdict(file)


def _finding(finding: Finding) -> None:
    style = "red" if finding.severity == "error" else "yellow"
    # In a terminal the source line must not wrap, or the caret would stand under the wrong half of it.
    room = max(40, console.out.width - GUTTER) if console.out.is_terminal else LONGEST_LINE
    for number, line in enumerate(finding.render(min(room, LONGEST_LINE)).split("\n")):
        console.say(line, style="" if number == 1 else style)  # the recipe's own line stays as it is


def _verdict(looked: Looked) -> None:
    wrong = errors(looked.findings)
    warned = len(looked.findings) - len(wrong)
    notes = f" ({warned} warning{'s' * (warned > 1)})" if warned else ""
    if wrong:
        console.notice(f"✗ {looked.file}: {counted(wrong)}{notes}", style="bold red")
    else:
        console.notice(f"✓ {looked.file}{notes}", style="bold green")


def counted(wrong: Sequence[Finding]) -> str:
    """`2 errors`."""
    return f"{len(wrong)} error{'s' * (len(wrong) > 1)}"


def shown(lines: Sequence[Shown]) -> None:
    """A recipe, its notes as comments."""
    widths = [cells(line.text) for line in lines if line.note]
    column = max((width for width in widths if width <= WIDEST), default=0)
    for line in lines:
        note = f"{' ' * max(0, column - cells(line.text))}  # {line.note}" if line.note else ""
        console.out.print(Text(line.text) + Text(note, style="dim"))


def comparison(compared: Comparison, recipe: str) -> None:
    """As `diff -u` looks."""
    console.say(f"--- {compared.before}", style="bold red")
    console.say(f"+++ {recipe}", style="bold green")
    styles = {"-": "red", "+": "green", " ": ""}
    for change in compared.changes:
        console.say(f"{change.sign} {change.text}".rstrip(), style=styles[change.sign])


def explanation(told: Explanation) -> None:
    """All about one key."""
    console.say(told.path or "A recipe", style="bold")
    for facts in told.facts:
        if facts.where:
            console.say(f"\n{facts.where}", style="cyan")
        if facts.meaning:
            table([[facts.meaning]], [""])
        unit, source = told.origin
        default = "none, it is needed" if facts.default == NEEDED else facts.default
        rows = {"type": facts.type, "default": default, "unit": unit, "from": source if facts.default else ""}
        table([[label, text] for label, text in rows.items() if text], ["dim", ""])
    for variant in told.variants:
        if variant.mark:
            console.say(f"\n{variant.mark}", style="cyan")
        if variant.meaning not in (facts.meaning for facts in told.facts):
            table([[variant.meaning]], [""])
        table([list(entry) for entry in variant.entries], ["bold", "dim", ""], indent=4)
    if told.example:
        console.say("\nexample", style="dim")
        for line in told.example:
            console.say(f"  {line}")


def cards(found: Sequence[Card]) -> None:
    """Three lines for each recipe: where it is, what it is for, who teaches whom in which languages."""
    for card in found:
        console.out.print(
            Text(visible(f"{card.name}  "), style="bold") + Text(str(card.file), style="dim"), soft_wrap=False
        )
        if card.mistakes:
            table([[f"{card.mistakes} error{'s' * (card.mistakes > 1)}; dudi-kit validate shows them"]], ["red"])
            continue
        who = f"{card.teacher} → {card.student}" if card.teacher else f"{card.student}, no teacher"
        table([[line] for line in (card.description, f"{who} · {' '.join(card.languages)}") if line], [""])


def runs(found: Sequence[tuple[Path, str]]) -> None:
    """How far each run got."""
    if found:
        console.say("\nRuns", style="bold")
        table([[str(folder), state] for folder, state in found], ["", "cyan"])


def migration(file: Path, result: Migrated, *, would: bool) -> None:
    """What was done to a file, or would be."""
    if not result.changed:
        console.notice(f"✓ {file}: version {result.version} already, nothing to do", style="bold green")
        return
    before = "no version" if result.version is None else f"version {result.version}"
    console.notice(f"{'! would migrate' if would else '✓ migrated'} {file}, which had {before}", style="bold yellow")
