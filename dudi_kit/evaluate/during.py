"""Scores of a student while it trains: a fixed small draw of the rows, answered by all processes together.

Each process answers every n-th row (`ask`); what all have said is then scored once (`score`), as in an evaluation after
training. Nothing is written here, and what can't be scored is missing with its reason, never 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedModel

from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError
from dudi_kit.evaluate.answering import AllTooLong, Asking, answer_rows
from dudi_kit.evaluate.bits import bits_per_byte
from dudi_kit.evaluate.metrics import normalise
from dudi_kit.evaluate.progress import Advance, Track
from dudi_kit.evaluate.run import TaskData, answer_task, context_of, missing_bits, missing_languages, score_task
from dudi_kit.evaluate.run_named import NamedData, Words, score_named
from dudi_kit.evaluate.scores import (
    BITS,
    AnswerRow,
    BitsPerByte,
    Missing,
    TaskScores,
    mean_of,
)
from dudi_kit.evaluate.store import Answers, Said
from dudi_kit.evaluate.subset import stratified
from dudi_kit.evaluate.task_rows import LanguageRows, TaskRow
from dudi_kit.plan.fingerprint import digest
from dudi_kit.train.during import StepScores, Told

RIGHT_ANSWER = "right answer, bits per byte"
"""Surprise at the right answers of a named task: it moves long before a weak student answers."""


@dataclass(frozen=True)
class Drawn:
    """The rows that are asked every time."""

    tasks: Mapping[str, TaskData]
    named: Mapping[str, NamedData]
    """Ids of its rows begin with their language, so that those of all languages are asked together."""

    held_out: Sequence[Example]

    @property
    def identity(self) -> str:
        """Tells the draw from others: scores of two draws can't be compared."""
        own = {name: _told_apart(data.examples) for name, data in self.tasks.items()}
        named = {name: [row.id for row in _rows(data)] for name, data in self.named.items()}
        return digest([own, named, _told_apart(self.held_out)])[:8]


def _told_apart(rows: Sequence[Example]) -> list[tuple[str, str, str]]:
    """By their text as well: files in two folders may have one name."""
    return [(row.language, row.origin.key, row.response) for row in rows]


def draw(
    tasks: Mapping[str, TaskData],
    named: Mapping[str, NamedData],
    held_out: Sequence[Example],
    *,
    limit: int,
    seed: int,
) -> Drawn:
    """At most `limit` rows of each task and language, and of each language's held-out rows.

    DataError: the rows of a task have more labels than are drawn.
    """
    return Drawn(
        {name: replace(data, examples=_drawn_task(name, data, limit, seed)) for name, data in tasks.items()},
        {
            name: replace(data, rows={code: _drawn_rows(code, rows, limit, seed) for code, rows in data.rows.items()})
            for name, data in named.items()
        },
        _by_language(held_out, limit, seed),
    )


def _drawn_task(name: str, data: TaskData, limit: int, seed: int) -> list[Example]:
    labels: dict[str, set[str]] = {}
    for example in data.examples if data.task.labels is not None else ():
        labels.setdefault(example.language, set()).add(normalise(example.response))
    for language, found in labels.items():
        if len(found) > limit:
            raise DataError(
                f"evaluation.during_training.limit: {limit} rows can't show the {len(found)} labels of {name} in "
                f"{language}; set it to {len(found)} or more, or leave {name} out of its tasks."
            )
    return _by_language(data.examples, limit, seed, labelled=bool(labels))


def _by_language(examples: Sequence[Example], limit: int, seed: int, *, labelled: bool = False) -> list[Example]:
    by_language: dict[str, list[Example]] = {}
    for example in examples:
        by_language.setdefault(example.language, []).append(example)
    drawn = (
        stratified(
            rows,
            limit,
            key=lambda row: row.origin.key,
            stratum=lambda row: normalise(row.response) if labelled else None,
            seed=seed,
        )
        for _, rows in sorted(by_language.items())
    )
    return [example for rows in drawn for example in rows]


def _drawn_rows(language: str, asked: LanguageRows, limit: int, seed: int) -> LanguageRows:
    rows = stratified(
        asked.rows,
        limit,
        key=lambda row: row.id,
        stratum=lambda row: row.references[0] if row.choices else None,
        seed=seed,
    )
    return replace(asked, rows=[replace(row, id=f"{language}:{row.id}") for row in rows])


@dataclass
class Heard:
    """What one process's rows were answered with."""

    context: int
    """The student's room, in tokens."""

    answers: dict[str, list[AnswerRow]] = field(default_factory=dict)
    """Task of the recipe's own → answers."""

    said: dict[str, dict[str, Said]] = field(default_factory=dict)
    """Named task → id of the row → answer."""

    bits: dict[str, BitsPerByte] = field(default_factory=dict)
    left_out: Ledger = field(default_factory=Ledger)


@dataclass(frozen=True)
class StudentScorer:
    """Asks a student in training and scores what it says (a `dudi_kit.train.during.Scorer`)."""

    drawn: Drawn
    encoder: Encoder
    best: str
    """The score that picks the best step: `bits per byte`, or the name of a task."""

    max_length: int
    """Tokens of prompt and response of a held-out row."""

    batch_size: int
    """Rows that are answered at once."""

    rows_read: int
    """Held-out rows that are read at once: their logits take the memory that a micro-batch's take."""

    @property
    def identity(self) -> str:
        """Of the rows that are asked."""
        return self.drawn.identity

    @property
    def lower_is_better(self) -> bool:
        """Of the score that picks the best step."""
        return self.best == BITS

    def ask(self, student: PreTrainedModel, process: int, processes: int, told: Told) -> Heard:
        """What the student says to this process's share of the rows. told: where it is, now and then."""
        context = context_of(student, self.max_length)
        heard, track, mine = Heard(context), _telling(told), slice(process, None, processes)
        for name, data in self.drawn.tasks.items():
            share = replace(data, examples=data.examples[mine])
            heard.answers[name] = answer_task(
                student, self.encoder, name, share, context, self.batch_size, track, heard.left_out
            )
        for name, entry in self.drawn.named.items():
            with track(name, len(_rows(entry)[mine])) as advance:
                heard.said[name] = self._said(student, entry, mine, heard, advance)
        held_out = self.drawn.held_out[mine]
        with track(BITS, len(held_out)) as advance:
            heard.bits = bits_per_byte(
                student,
                self.encoder,
                held_out,
                max_length=self.max_length,
                batch_size=self.rows_read,
                ledger=heard.left_out,
                progress=advance,
            )
        return heard

    def _said(
        self, student: PreTrainedModel, entry: NamedData, mine: slice, heard: Heard, advance: Advance
    ) -> dict[str, Said]:
        """Answers to some rows of a named task; of those that are too long there are none."""
        share = [(row, some.until) for some in entry.rows.values() for row in some.rows][mine]
        said: dict[str, Said] = {}
        for until in dict.fromkeys(end for _, end in share):
            rows = [row for row, end in share if end == until]
            how = Asking(entry.settings.scoring, entry.task.max_new_tokens, self.batch_size, heard.context, until)
            with suppress(AllTooLong):  # each was counted, and another process's share may have answers
                said |= answer_rows(
                    student, self.encoder, rows, how, _InMemory(), ledger=heard.left_out, progress=advance
                )
        return said

    def score(self, heard: Sequence[Heard]) -> StepScores:
        """The scores of what all processes have heard."""
        ledger = Ledger()
        for one in heard:
            ledger.counts.update(one.left_out.counts)
        missing: list[Missing] = []
        tasks: dict[str, TaskScores] = {}
        for name, data in self.drawn.tasks.items():
            rows = [row for one in heard for row in one.answers[name]]
            silent = _silent(rows)
            missing += [Missing(name, language, SILENT.format(count)) for language, count in silent.items()]
            spoken = [row for row in rows if row.language not in silent]
            tasks[name] = score_task(name, data.task, sorted(spoken, key=lambda row: row.id), ledger)
            lacking = missing_languages(name, data, tasks[name], self.encoder, heard[0].context)
            missing += [lack for lack in lacking if lack.language not in silent]
        said = {
            name: {id_: words for one in heard for id_, words in one.said[name].items()} for name in self.drawn.named
        }
        outcome = score_named(self.drawn.named, lambda name, *_: Words(said[name], None))
        bits = _added(one.bits for one in heard)
        if self.drawn.held_out:
            missing += missing_bits(bits, self.drawn.held_out, self.drawn.tasks, self.encoder, self.max_length)
        return self._scores(tasks | outcome.tasks, bits, [*missing, *outcome.missing], ledger)

    def _scores(
        self,
        tasks: Mapping[str, TaskScores],
        bits: Mapping[str, BitsPerByte],
        missing: Sequence[Missing],
        ledger: Ledger,
    ) -> StepScores:
        lacking: dict[str, dict[str, str]] = {}
        for lack in missing:
            lacking.setdefault(lack.task, {})[lack.language] = lack.reason
        finite = {code: one.value for code, one in bits.items() if code not in lacking.get(BITS, {})}
        line: dict[str, Any] = {"of": self.identity}
        line |= {"bits_per_byte": _means(finite)} if finite else {}
        line["tasks"] = {name: figures for name, scored in tasks.items() if (figures := _figures(scored))}
        line |= {"missing": lacking} if lacking else {}
        line |= {"left_out": ledger.as_json()} if ledger.counts else {}
        return StepScores(line, self._picking(line))

    def _picking(self, line: Mapping[str, Any]) -> float | None:
        """The score that picks the best step; None where a language lacks it that has rows: two such means are not
        comparable."""
        if self.best == BITS:
            wanted, found = {row.language for row in self.drawn.held_out}, line.get("bits_per_byte")
        else:
            own, named = self.drawn.tasks.get(self.best), self.drawn.named.get(self.best)
            wanted = {row.language for row in own.examples} if own else set(named.rows) if named else set()
            found = next(iter(line["tasks"].get(self.best, {}).values()), None)
        return found["all"] if found and set(found["by_language"]) == wanted else None


SILENT = "all {:,} answers are empty: a model that says nothing has no score"


def _silent(rows: Iterable[AnswerRow]) -> dict[str, int]:
    """Languages in which nothing but empty answers was said → how many."""
    said: dict[str, list[bool]] = {}
    for row in rows:
        said.setdefault(row.language, []).append(bool(row.answer.strip()))
    return {language: len(spoken) for language, spoken in said.items() if not any(spoken)}


def _figures(scored: TaskScores) -> dict[str, Any]:
    """Each metric's means, the task's own first."""
    found: dict[str, dict[str, float]] = {}
    for language, row in scored.languages.items():
        for metric, score in row.metrics.items():
            found.setdefault(metric, {})[language] = score.value
        if row.right_answer is not None:
            found.setdefault(RIGHT_ANSWER, {})[language] = row.right_answer.bits_per_byte
    return {metric: _means(by_language) for metric, by_language in found.items()}


def _means(by_language: dict[str, float]) -> dict[str, Any]:
    mean = mean_of(by_language)
    assert mean is not None, "asked where there is a language"
    return {"all": mean.value, "by_language": dict(sorted(by_language.items()))}


def _added(parts: Iterable[Mapping[str, BitsPerByte]]) -> dict[str, BitsPerByte]:
    total: dict[str, BitsPerByte] = {}
    for part in parts:
        for language, one in part.items():
            before = total.get(language, BitsPerByte(0.0, 0, 0))
            total[language] = BitsPerByte(before.nats + one.nats, before.tokens + one.tokens, before.bytes + one.bytes)
    return total


def _rows(entry: NamedData) -> list[TaskRow]:
    return [row for rows in entry.rows.values() for row in rows.rows]


def _telling(told: Told) -> Track:
    @contextmanager
    def track(description: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            told(f"{description}: {done} of {total} rows")

        yield advance

    return track


class _InMemory(Answers):
    """Answers that nobody asks for again: the student has other weights next time."""

    def __init__(self) -> None:
        self.model, self._said = "", {}

    def add(self, some: Iterable[Said]) -> None:
        """Keep them."""
        self._said |= {said.key: said for said in some}

    def keep_only(self, keys: Iterable[str]) -> None:
        """There are no others."""
