"""The vocabulary mapping as a part of the plan: decided with the recipe's tokenizers and rows, and restored by it."""

from collections.abc import Sequence
from dataclasses import replace

from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import VocabularyMismatch
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.rows import LOST
from dudi_kit.plan.schema import PlannedVocabulary, TaughtShare
from dudi_kit.recipe.schema.verbalizer import Vocabulary
from dudi_kit.verbalizer.vocabulary.coverage import Coverage, describe
from dudi_kit.verbalizer.vocabulary.mapping import JointVocabulary, Speaker, Wish, decide, find_overrides, restore
from dudi_kit.verbalizer.vocabulary.overrides import read_overrides
from dudi_kit.verbalizer.vocabulary.tables import Tables

RESPONSES_COMPARED = 200
"""Of each language, to find out whether both tokenizers cut text alike."""


def speaker(name: str, encoder: Encoder, rows: int) -> Speaker:
    """One side of the mapping. rows: of the model's embedding."""
    return Speaker(
        name,
        encoder.tokenizer.get_vocab(),
        rows,
        encoder.end_of_turn_id,
        encoder.stop_ids,
        encoder.tokenizer,
        encoder.text_ids,
    )


def join(
    settings: Vocabulary, student: Speaker, teacher: Speaker, examples: Sequence[Example], run: RunDir
) -> tuple[JointVocabulary, Wish]:
    """Decide the mapping, and keep its tables in the run directory. The wish names the mapping that was picked."""
    overrides = find_overrides(student, teacher, read_overrides(settings.overrides)) if settings.overrides else {}
    wish = Wish(settings.mapping, settings.meets, overrides)
    vocabulary = decide(student, teacher, wish, _some_responses(examples), Tables(run.vocabulary))
    return vocabulary, replace(wish, mapping=vocabulary.mapping)


def rejoin(decided: PlannedVocabulary, student: Speaker, teacher: Speaker, run: RunDir) -> tuple[JointVocabulary, Wish]:
    """The mapping of a written plan."""
    wish = Wish(decided.mapping, decided.meets, dict(decided.overrides))
    return restore(student, teacher, wish, decided.size, decided.reason, Tables(run.vocabulary)), wish


def _some_responses(examples: Sequence[Example]) -> list[str]:
    """Responses of every language, by which two tokenizers are told apart."""
    by_language: dict[str, list[str]] = {}
    for example in examples:
        some = by_language.setdefault(example.language, [])
        if len(some) < RESPONSES_COMPARED:
            some.append(example.response)
    return [response for some in by_language.values() for response in some]


def planned(vocabulary: JointVocabulary, wish: Wish, coverage: Coverage, *, student_rows: int) -> PlannedVocabulary:
    """The mapping as the plan writes it."""
    return PlannedVocabulary(
        mapping=vocabulary.mapping,
        size=vocabulary.size,
        student_rows=student_rows,
        reason=vocabulary.reason,
        meets=wish.meets,
        overrides=sorted(wish.overrides.items()),
        coverage={code: TaughtShare(**shares._asdict()) for code, shares in coverage.items()},
    )


def coverage_notices(settings: Vocabulary, coverage: Coverage, ledger: Ledger) -> list[str]:
    """What the teacher has a word on, by language. VocabularyMismatch where it is too little, with the texts that a
    tokenizer was seen to lose."""
    poor = {code: shares for code, shares in coverage.items() if 1 - shares.none < settings.min_coverage}
    if not poor:
        return describe(coverage)
    named = ", ".join(f"{code} {1 - shares.none:.1%}" for code, shares in poor.items())
    text = (
        f"the teacher has a word on less than verbalizer.vocabulary.min_coverage ({settings.min_coverage:.0%}) of the "
        f"response tokens in {named}: the two tokenizers do not say the same text there"
    )
    if settings.below == "error":
        lost = "".join(f" ({line})" for line in ledger.lines() if line.startswith(LOST))
        raise VocabularyMismatch(
            f"{text}{lost}. Choose another teacher, leave the language out, lower min_coverage, or set below: warn."
        )
    return [text, *describe(coverage)]
