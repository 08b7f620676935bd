"""How much of a student's text a teacher with another tokenizer has a word on: ours, and by raw piece strings.

    python -m benchmarks.coverage SIB200 student=TOKENIZER:teacher=TOKENIZER … [--sentences 300]

full: share of the student's tokens with the teacher's distribution; span: inside spans of which the likelihoods are
compared; none: without a word. raw: share of the student's tokens that a matching of piece strings keeps, as it is done
elsewhere: both token strings are joined from the left and cut wherever the joined strings are equal, and a token
counts where one faces one of the same spelling.
"""

import argparse
from itertools import accumulate
from typing import Any

from benchmarks.pairs import LANGUAGES, aligned, sentences, tokenise, tokenizer
from dudi_kit.verbalizer.vocabulary.coverage import coverage_of


def raw(student: list[str], teacher: list[str]) -> int:
    """Tokens that one token of the same spelling faces at the same place of the joined strings."""
    places = {(end - len(piece), piece) for piece, end in zip(teacher, accumulate(map(len, teacher)), strict=True)}
    return sum(
        (end - len(piece), piece) in places for piece, end in zip(student, accumulate(map(len, student)), strict=True)
    )


def row(student: Any, teacher: Any, joint: Any, language: str, texts: list[str]) -> str:
    responses = [tokenise(student, text) for text in texts]
    (shares,) = coverage_of((language, response, joint.read(response)) for response in responses).values()
    kept = sum(
        raw(student.convert_ids_to_tokens(response), teacher.convert_ids_to_tokens(tokenise(teacher, text)))
        for text, response in zip(texts, responses, strict=True)
    )
    by_string = kept / sum(map(len, responses))
    return f"| {language} | {shares.full:.1%} | {shares.span:.1%} | {shares.none:.1%} | {by_string:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("pairs", nargs="+")
    parser.add_argument("--sentences", type=int, default=300)
    asked = parser.parse_args()
    for pair in asked.pairs:
        (student_name, student), (teacher_name, teacher) = ((side.split("=", 1)) for side in pair.split(":"))
        student, teacher = tokenizer(student), tokenizer(teacher)
        joint = aligned(student, teacher)
        print(f"\n{teacher_name} → {student_name}\n\n| | full | span | none | raw strings |\n|---|---|---|---|---|")
        for language in (*LANGUAGES, "en"):
            print(
                row(student, teacher, joint, language, sentences(asked.text, language)[: asked.sentences]), flush=True
            )


if __name__ == "__main__":
    main()
