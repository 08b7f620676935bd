"""Answers of teacher, before and after to the same rows, side by side, for people to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dudi_kit.evaluate.scores import AnswerRow
from dudi_kit.recipe.schema.evaluation import Subject

MOST_SAMPLES = 80
MOST_PER_LANGUAGE = 3
LONGEST_TEXT = 250
"""Characters; with all samples that long in a script of three bytes a letter, they fill 300 kB of the page."""


@dataclass(frozen=True)
class Sample:
    """One row with its reference and what each model answered."""

    task: str
    language: str
    prompt: str
    reference: str
    answers: dict[Subject, AnswerRow]


def pick_samples(answers: Mapping[Subject, list[AnswerRow]]) -> list[Sample]:
    """The first few rows of each task and language: at most 3 of each, and 80 in all."""
    rows: dict[tuple[str, str], dict[str, dict[Subject, AnswerRow]]] = {}
    for subject, said in answers.items():
        for row in said:
            rows.setdefault((row.task, row.language), {}).setdefault(row.id, {})[subject] = row
    each = max(1, min(MOST_PER_LANGUAGE, MOST_SAMPLES // max(1, len(rows))))
    picked = [_sample(by_subject) for by_id in rows.values() for by_subject in list(by_id.values())[:each]]
    return sorted(picked[:MOST_SAMPLES], key=lambda sample: (sample.task, sample.language))


def pick_rollouts(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """What the student said at the first, a middle and the last logged step, by language: three lines of each."""
    by_language: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_language.setdefault(line["language"], []).append(line)
    picked = {code: (0, (len(said) - 1) // 2, len(said) - 1) for code, said in sorted(by_language.items())}
    return {code: [by_language[code][i] for i in sorted(set(places))] for code, places in picked.items()}


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text, or its beginning and a word about the rest."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest:,} more characters)"


def _sample(answers: dict[Subject, AnswerRow]) -> Sample:
    row = next(iter(answers.values()))
    return Sample(row.task, row.language, row.prompt, row.reference, answers)
