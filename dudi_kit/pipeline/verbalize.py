"""The station that prepares and shows demonstrations: what the teacher will read, and how many rows it reads how."""

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from dudi_kit.console import notice, out, say
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError
from dudi_kit.pipeline.answers import asked_of
from dudi_kit.pipeline.stations import prepare
from dudi_kit.plan.build import row_maker, sides_of, teacher_room
from dudi_kit.plan.chain import Stage
from dudi_kit.plan.rows import Row, TeacherSide, training_examples
from dudi_kit.recipe.load import LoadedRecipe
from dudi_kit.recipe.schema.data import Dataset


class _Shown(NamedTuple):
    """A prompt as its reader gets it, and the response in the data, or the teacher's."""

    row: Row
    example: Example
    reader: str
    text: str
    response: str


def verbalize(
    recipe: LoadedRecipe,
    *,
    output: Path | None,
    count: int,
    language: str | None,
    lock: Path | None,
    confirm: Callable[[], None] | None = None,
) -> None:
    """Have the teacher write what the demonstrations and responses of a recipe lack, and show what comes of it.

    confirm: as for `stations.prepare`.
    """
    stage = prepare(recipe, output=output, lock=lock, confirm=confirm)
    ledger = Ledger()
    asked = asked_of(stage)
    examples = training_examples(stage.recipe, ledger, asked)
    student, teaching = sides_of(stage, examples)
    room = teacher_room(stage.recipe, teaching)
    maker = row_maker(stage.recipe, examples, student, teaching, room, ledger, asked)
    rows, side = maker.rows(examples), maker.teacher
    chosen = [row for row in rows if language in (None, row.language)]
    if not chosen:
        raise DataError(f"--language {language}: no training row is in this language. Check data.train.")
    shown = _shown(stage, chosen, examples, student, side)
    for one in _in_turn(shown, count):
        say(f"{one.row.language}  {one.example.origin}  what the {one.reader} reads", style="bold")
        say(one.text)
        say(f"→ {one.response}\n", style="green")
    if side is not None and side.terms:
        out.print(_table(rows, side))
    elif not shown:
        notice("nothing to prepare: no signal's teacher reads demonstrations, and the rows stay as the data has them")
    for line in ledger.lines():
        notice(f"note  {line}")


def _shown(
    stage: Stage, rows: Iterable[Row], examples: list[Example], student: Encoder, side: TeacherSide | None
) -> list[_Shown]:
    """What the teacher reads; of a recipe without such a teacher, the rows that demonstrations or a teacher changed."""
    found = []
    for row in rows:
        example = examples[row.index]
        response = student.decode(row.response)
        if side is not None and side.terms:
            text = side.encoder.tokenizer.decode(row.teacher_prompts[side.terms[0]])
            found.append(_Shown(row, example, "teacher", str(text), response))
        elif _is_made(stage.recipe.data.train[row.dataset]):
            found.append(_Shown(row, example, "student", str(student.tokenizer.decode(row.prompt)), response))
    return found


def _is_made(dataset: Dataset) -> bool:
    """Whether its rows are not just as the data has them."""
    return dataset.demonstrate or dataset.responses != "corpus"


def _in_turn(shown: list[_Shown], count: int) -> Iterator[_Shown]:
    """The first ones of each language in turn."""
    groups: dict[str, list[_Shown]] = {}
    for one in shown:
        groups.setdefault(one.row.language, []).append(one)
    ordered = (one for turn in zip_longest(*groups.values()) for one in turn if one is not None)
    yield from (one for one, _ in zip(ordered, range(count), strict=False))


def _table(rows: list[Row], side: TeacherSide) -> Table:
    """By language: how many rows are taught with how much of a demonstration, and what the teacher was asked for."""
    table = Table(title=f"demonstrations ({', '.join(side.demonstrator.settings.languages)})", title_justify="left")
    table.add_column("language")
    for name in ("rows", "whole", "in part", "none", "cut"):
        table.add_column(name, justify="right")
    asks = side.demonstrator.settings.source == "teacher"
    for name in ("asked", "failed") if asks else ():
        table.add_column(name, justify="right")
    for code in sorted({row.language for row in rows}):
        numbers = [sum(row.language == code for row in rows)]
        numbers += [side.outcomes[code, outcome] for outcome in ("whole", "in part", "none")]
        numbers.append(side.cut[code])
        numbers += [side.demonstrator.asked[code], side.demonstrator.failed[code]] if asks else []
        table.add_row(code, *(f"{number:,}" for number in numbers))
    return table
