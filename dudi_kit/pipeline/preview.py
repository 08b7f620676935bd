"""`dudi-kit preview`: some rows as student and teacher will really read them, without a weight.

Nothing is made anew here: rows come from the functions that plan and training use, and which tokens are in the loss is
what the training's own batch says.
"""

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from textwrap import wrap
from typing import NamedTuple

from rich.text import Text

from dudi_kit.console import err, out
from dudi_kit.data.asked import Asked, read_answers
from dudi_kit.data.batches import join
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import RecipeError
from dudi_kit.pipeline.answers import answers_file
from dudi_kit.pipeline.marks import Kind, Marker, Span
from dudi_kit.plan.build import Sides, read_sides, row_maker, training_rows
from dudi_kit.plan.chain import Stage, build_chain
from dudi_kit.plan.rows import Row, TrainingRows
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.load import LoadedRecipe
from dudi_kit.recipe.schema.verbalizer import Term
from dudi_kit.train.builders import active_weights
from dudi_kit.train.step import ON_CORPUS, ON_ROLLOUT

BODY = "  "
"""In front of tokens."""

TERMS: dict[Term, str] = {"off_policy": "off policy", "on_policy": "on policy"}


class Wanted(NamedTuple):
    """Which rows to show."""

    rows: int
    language: str | None
    dataset: str | None
    seed: int


@dataclass(frozen=True)
class Seen:
    """What a stage will train on."""

    stage: Stage
    sides: Sides
    made: TrainingRows
    ledger: Ledger
    """What was left out and cut, over all rows."""

    asked: Asked
    """What the teacher has written so far, and what it is yet to write; `dudi-kit verbalize` asks it."""

    @property
    def active(self) -> dict[str, float]:
        """The weight of each signal that has one."""
        return active_weights(self.stage.recipe.signals)


class Reading(NamedTuple):
    """What one model reads of a row."""

    who: Encoder
    title: str
    spans: list[Span]
    notes: list[str]


def preview(recipe: LoadedRecipe, wanted: Wanted) -> None:
    """Print them. Tokenizers that are yet to be trained are trained in a temporary folder; nothing else is written."""
    with tempfile.TemporaryDirectory(prefix="dudi-kit-") as workspace:
        with err.status(f"{recipe.recipe.name}: reading"):
            seen = look(recipe, Path(workspace))
            rows = choose(seen, wanted)
        marker = Marker(out)
        _print_summary(seen)
        for row in rows:
            _print_row(seen, row, marker)
    for line in marker.legend():
        out.print(line)


def look(recipe: LoadedRecipe, workspace: Path) -> Seen:
    """All rows of the recipe's own stage. workspace: an empty folder, for tokenizers."""
    *needed, main = build_chain(recipe.recipe, recipe.path, workspace, root=recipe.root).in_order()
    for stage in needed:
        read_sides(stage, Ledger())
    ledger = Ledger()
    asked = Asked(read_answers([answers_file(main, Path(recipe.recipe.output.folder))]))
    sides = read_sides(main, ledger, asked)
    made = training_rows(main.recipe, sides.examples, sides.student, sides.teaching, sides.room, ledger, asked)
    return Seen(main, sides, made, ledger, asked)


def choose(seen: Seen, wanted: Wanted) -> list[Row]:
    """Rows of the first epoch at random, the languages in turn."""
    drawn = [seen.made.rows[i] for i in dict.fromkeys(seen.made.mixture.order(0))]
    fitting = [
        row for row in drawn if wanted.language in (None, row.language) and wanted.dataset in (None, row.dataset)
    ]
    if not fitting:
        there = sorted({f"{row.language} ({row.dataset})" for row in drawn})
        asked = [
            f"{key} {value}" for key, value in (("language", wanted.language), ("dataset", wanted.dataset)) if value
        ]
        raise RecipeError(
            f"no training row of {' and '.join(asked)}. There are {', '.join(there)}: language (dataset)."
        )
    random.Random(wanted.seed).shuffle(fitting)  # noqa: S311 – it only picks what people look at
    by_language: dict[str, list[Row]] = {}
    for row in fitting:
        by_language.setdefault(row.language, []).append(row)
    turns = max(map(len, by_language.values()))
    in_turn = (rows[turn] for turn in range(turns) for rows in by_language.values() if turn < len(rows))
    return [row for row, _ in zip(in_turn, range(wanted.rows), strict=False)]


def readings(seen: Seen, row: Row) -> Iterator[Reading]:
    """What the models read of a row: the student first, then the teacher for each signal that asks it."""
    example = seen.sides.examples[row.index]
    yield _of_student(seen, row, example)
    teaching = seen.sides.teaching
    for term in TERMS if teaching else ():
        if term in seen.active:
            assert teaching is not None
            yield _of_teacher(seen, row, example, term, teaching.encoder)


def _of_student(seen: Seen, row: Row, example: Example) -> Reading:
    student, data = seen.sides.student, seen.stage.recipe.data
    batch = join([row.prompt], [row.response], pad_id=student.pad_id)
    ids = batch.input_ids_LT[0, : batch.longest].tolist()
    learned = int(batch.response_mask_BR.sum())
    in_loss = bool(ON_CORPUS & seen.active.keys())
    cut = student.response_ids(example.response)[len(row.response) :]
    spans = [
        Span(Kind.PROMPT, ids[:-learned] if learned else ids),
        Span(Kind.LOSS if in_loss else Kind.UNREAD, ids[len(ids) - learned :]),
        Span(Kind.CUT, cut),
    ]
    notes = [f"{len(ids):,} of {data.max_length:,} tokens (data.max_length)"]
    if cut:
        notes.append(f"{len(cut):,} cut from the end of y, the end of turn with them")
    title = f"student: prompt {len(ids) - learned:,} tokens, y {learned:,} tokens"
    readers = ", ".join(sorted(ON_CORPUS & seen.active.keys())) if in_loss else ""
    title += f", in the loss of {readers}" if in_loss else ", read by no signal of this recipe"
    if sampling := ", ".join(sorted(ON_ROLLOUT & seen.active.keys())):
        most = seen.stage.recipe.rollouts.max_new_tokens
        notes.append(f"then, after the same prompt, its own sample ỹ of at most {most:,} tokens for {sampling}")
    return Reading(student, title, [span for span in spans if span.ids], notes)


def _of_teacher(seen: Seen, row: Row, example: Example, term: Term, teacher: Encoder) -> Reading:
    prompt = row.teacher_prompts[term]
    bare = teacher.prompt_ids(example.prompt)
    before, shown, after = _added(bare, prompt, teacher)
    answer = "y" if term == "off_policy" else "ỹ"
    demonstrated = f", {len(shown):,} of them the demonstration z" if shown else ""
    title = f"teacher, {TERMS[term]}: prompt {len(prompt):,} tokens{demonstrated}, then {answer}"
    notes = []
    if seen.sides.room is not None and shown:
        notes.append(f"{len(prompt):,} of {seen.sides.room:,} tokens of room for the prompt")
    if term in seen.stage.recipe.verbalizer.demonstration.terms and not shown:
        notes += _without_demonstration(seen, row, example)
    if not shown and prompt == row.prompt:
        return Reading(teacher, title, [], ["the same prompt as the student's", *notes])
    spans = [Span(Kind.PROMPT, before), Span(Kind.DEMONSTRATION, shown), Span(Kind.PROMPT, after)]
    return Reading(teacher, title, [span for span in spans if span.ids], notes)


def _added(bare: list[int], shown: list[int], teacher: Encoder) -> tuple[list[int], list[int], list[int]]:
    """What stands in `shown` and not in `bare`, with what is before and after it in both.

    The end is compared first: a demonstration may begin with the very words of the prompt, and stands before it.
    """
    if bare == shown:
        return shown, [], []
    shorter = min(len(bare), len(shown))
    tail = next((i for i in range(shorter) if bare[-1 - i] != shown[-1 - i]), shorter)
    head = next((i for i in range(shorter - tail) if bare[i] != shown[i]), shorter - tail)
    end = len(shown) - tail
    if shown[head] == shown[end] and teacher.tokenizer.decode(shown[head]).isspace():
        head, end = head + 1, end + 1  # of two equal line breaks around it, the latter is the demonstration's
    return shown[:head], shown[head:end], shown[end:]


def _without_demonstration(seen: Seen, row: Row, example: Example) -> list[str]:
    """Why the row has none: what making it once more puts down."""
    ledger, sides = Ledger(), seen.sides
    row_maker(seen.stage.recipe, sides.examples, sides.student, sides.teaching, sides.room, ledger, seen.asked).row(
        row.index, example
    )
    return sorted({event for event, _ in ledger.counts if "demonstration" in event})


def _print_summary(seen: Seen) -> None:
    """How many rows there are, how long they are, and what was left out."""
    rows = seen.made.rows
    kept, read = f"{len(rows):,}", f"{len(seen.sides.examples):,}"
    out.print(Text(f"{seen.stage.recipe.name}: {kept} of {read} rows are trained on", style="bold"))
    by_language: dict[str, list[Row]] = {}
    for row in rows:
        by_language.setdefault(row.language, []).append(row)
    width = max(len(LANGUAGES[code].name) for code in by_language)
    head = f"{BODY}{'':{width + 3}}{'rows':>8}{'median':>8}{'longest':>9}   tokens of prompt and y"
    out.print(Text(head, style="dim"))
    for code in sorted(by_language):
        lengths = [len(row.prompt) + len(row.response) for row in by_language[code]]
        name = f"{code} {LANGUAGES[code].name}"
        out.print(Text(f"{BODY}{name:{width + 3}}{len(lengths):>8,}{median(lengths):>8,.0f}{max(lengths):>9,}"))
    for line in [*seen.ledger.lines(), *seen.asked.lines()]:
        _print_wrapped(f"! {line}", "yellow")
    out.print()


def _print_row(seen: Seen, row: Row, marker: Marker) -> None:
    example = seen.sides.examples[row.index]
    head = f"── {row.language} · {example.origin} "
    out.print(Text(head + "─" * max(marker.width - len(head), 2), style="bold"))
    for reading in readings(seen, row):
        out.print(Text(reading.title, style="bold"))
        for line in marker.lines(reading.who, reading.spans, indent=BODY):
            out.print(line)
        for note in reading.notes:
            _print_wrapped(f"· {note}", "dim")
    out.print()


def _print_wrapped(text: str, style: str) -> None:
    """An indented line, wrapped at words in a terminal; elsewhere it stays one line."""
    width = out.width if out.is_terminal else len(text) + len(BODY)
    for line in wrap(text, width, initial_indent=BODY, subsequent_indent=BODY * 2, break_on_hyphens=False):
        out.print(Text(line, style=style))
