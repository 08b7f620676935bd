"""Answers that were given elsewhere: `<task>.<language>.jsonl`, a line {"id": …, "response": …} for each row.

An answer that is missing is no answer: it must not be scored as a wrong one. So files and rows have to agree.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from dudi_kit.errors import DataError
from dudi_kit.evaluate.run_named import NamedData, Words
from dudi_kit.evaluate.store import Said
from dudi_kit.evaluate.task_rows import LanguageRows
from dudi_kit.recipe.diagnostics import nearest
from dudi_kit.recipe.schema.evaluation import Evaluation, NamedTask

NAMED = 3
"""Ids that a message names."""


class Predictions:
    """A folder of answers."""

    def __init__(self, folder: Path) -> None:
        """DataError: no such folder, or it has no .jsonl file."""
        self.folder = folder
        self.files = {file.name.removesuffix(".jsonl"): file for file in sorted(folder.glob("*.jsonl"))}
        if not self.files:
            raise DataError(f"{folder} has no predictions: a file TASK.LANGUAGE.jsonl for each task and language.")

    def asked_for(self, evaluation: Evaluation, *, every: bool) -> Evaluation:
        """The tasks and languages that are scored: of all that there are (`every`) those that have a file, else just
        these. DataError: a file of no task, or none for a task that was named."""
        tasks = {name: task for name, task in evaluation.tasks.items() if isinstance(task, NamedTask)}
        places = {f"{name}.{language}": name for name, task in tasks.items() for language in task.languages or ()}
        if every:
            self._require_known(list(places))
        elif missing := [place for place in places if place not in self.files]:
            raise DataError(f"{self.folder} has no {missing[0]}.jsonl ({len(missing)} such). Add it, or leave it out.")
        kept = {
            name: task.model_copy(update={"languages": there})
            for name, task in tasks.items()
            if (there := [code for code in task.languages or () if f"{name}.{code}" in self.files])
        }
        return evaluation.model_copy(update={"tasks": kept})

    def said(self, name: str, entry: NamedData, language: str, asked: LanguageRows) -> Words:
        """The answers, which may be empty. DataError: ids that are missing, unknown or there twice."""
        file = self.files[f"{name}.{language}"]
        wanted = {row.id for row in asked.rows}
        found: dict[str, Said] = {}
        lines: dict[str, int] = {}
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            identity, response = _prediction(line, where)
            if identity not in wanted:
                hint = f"Its ids are like {asked.rows[0].id!r}."
                raise DataError(f"{where}: no row of {name} in {language} has the id {identity!r}. {hint}")
            if identity in lines:
                raise DataError(f"{where}: the id {identity!r} stands in line {lines[identity]} already.")
            lines[identity] = number
            found[identity] = Said("", identity, response, 0, truncated=False, nats=[])
        if missing := [row.id for row in asked.rows if row.id not in found]:
            more = f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
            raise DataError(
                f"{file}: {len(missing):,} of {len(wanted):,} rows have no prediction: "
                f"{', '.join(map(repr, missing[:NAMED]))}{more}. An empty response is an answer; a missing one is none."
            )
        return Words(found, None)

    def _require_known(self, places: Sequence[str]) -> None:
        for stem, file in self.files.items():
            if stem not in places:
                near = nearest(stem, places)
                hint = f"Did you mean {near}.jsonl?" if near else "A file is called TASK.LANGUAGE.jsonl."
                raise DataError(f"{file}: there is no such task and language. {hint}")


def _prediction(line: str, where: str) -> tuple[str, str]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected one JSON object a line, found {error}.") from error
    match values:
        case {"id": str() | int() as identity, "response": str() as response} if not isinstance(identity, bool):
            return str(identity), response
        case _:
            raise DataError(f'{where}: expected {{"id": …, "response": "…"}}, found {line.strip()[:80]}')
