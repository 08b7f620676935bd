"""`dudi-kit failure`: the rows of a step whose loss or gradient was no number, for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from dudi_kit.console import harmless, out, say
from dudi_kit.errors import RunDirectoryError

LONGEST = 300
"""Characters of a text that are shown; the file has all of it."""

TEXTS = ("prompt", "response", "rollout")


def show_failure(file: Path, *, everything: bool) -> None:
    """Print the rows whose loss is no number, or all of them; RunDirectoryError where the file is none of ours."""
    rows = _read(file)
    broken = [row for row in rows if row["not_finite"]]
    first = rows[0]
    where = f"step {first['step']:,}, rank {first['rank']}, seed {first['seed']}"
    say(f"{where}: {len(broken):,} of {len(rows):,} rows have a loss that is no number")
    for row in rows if everything or not broken else broken:
        say(
            f"row {row['row']:,} of {row['dataset']} ({row['language']}), micro-batch {row['micro_batch']}",
            style="bold",
        )
        losses = ", ".join(f"{name} {each['sum']} over {each['count']}" for name, each in row["losses"].items())
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=12)
        table.add_column(overflow="fold")
        table.add_row("  losses", Text(f"{losses} (sum in nats, items)"))
        for name in TEXTS:
            if row[name] is not None:
                table.add_row(f"  {name}", Text(harmless(_short(row[name]))))
        out.print(table)


def _read(file: Path) -> list[Mapping[str, Any]]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if not rows or not all(row.keys() >= {*TEXTS, "not_finite", "losses"} for row in rows):
            raise ValueError("other lines")
    except (OSError, ValueError, AttributeError) as error:
        raise RunDirectoryError(
            f"{file} is not what a failed step leaves: give a file failures/step-N.rank-R.jsonl of a run directory."
        ) from error
    return rows


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
