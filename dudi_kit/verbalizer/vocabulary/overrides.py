"""The file by which a recipe, or a community, corrects how teacher pieces are said: teacher piece → student piece.

    " Krung Thep": " กรุงเทพ"      # texts, with their leading space
    "<|eot_id|>": "<end_of_turn>"   # special pieces by their own spelling

A piece is named by the text that it says, since each tokenizer writes its own pieces in its own way; so a file
serves many pairs of tokenizers. A piece that is only a part of a character is named as the tokenizer writes it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dudi_kit.errors import RecipeError
from dudi_kit.recipe.diagnostics import Finding, InvalidRecipeError, Problem
from dudi_kit.recipe.yaml_nodes import Node, Place, Source, lines_of, read_yaml
from dudi_kit.verbalizer.vocabulary.spelling import Spelling

FIELD = "verbalizer.vocabulary.overrides"


class Override(NamedTuple):
    """One line of the file."""

    teacher: str
    student: str
    teacher_place: Place
    student_place: Place


class Named(NamedTuple):
    """A tokenizer whose pieces a file may name."""

    who: str
    spelling: Spelling
    pieces: Mapping[str, int]

    def find(self, text: str) -> int | None:
        """The piece that says this text, or that is written so."""
        ids = self.spelling.by_bytes.get(text.encode("utf-8", "surrogatepass"), [])
        return ids[0] if ids else self.pieces.get(text)


def read_overrides(path: str) -> list[Override]:
    """The lines of an overrides file. InvalidRecipeError with every finding, RecipeError where it can't be read."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RecipeError(f"{FIELD}: can't read {path}: {reason}.") from error
    tree = read_yaml(text, Source(path, file.parent, lines_of(text)))
    if not isinstance(tree.root.value, dict):
        problem = Problem((), "bad-type", "a mapping of teacher pieces to student pieces expected", '"piece": "piece"')
        raise InvalidRecipeError([*tree.findings, tree.root.place.finding(problem)])
    findings = [
        *tree.findings,
        *(_not_text(piece, node) for piece, node in tree.root.value.items() if not _is_text(node)),
    ]
    if findings:
        raise InvalidRecipeError(findings)
    return [
        Override(piece, str(node.value), node.key or node.place, node.place) for piece, node in tree.root.value.items()
    ]


def resolve(overrides: Sequence[Override], student: Named, teacher: Named) -> dict[int, int]:
    """Teacher piece → student piece, as ids. InvalidRecipeError names every piece that a tokenizer lacks."""
    findings, found = [], {}
    for line in overrides:
        piece, partner = teacher.find(line.teacher), student.find(line.student)
        if piece is None:
            findings.append(_unknown(line.teacher, line.teacher_place, teacher))
        if partner is None:
            findings.append(_unknown(line.student, line.student_place, student))
        if piece is not None and partner is not None:
            found[piece] = partner
    if findings:
        raise InvalidRecipeError(findings)
    return found


def _is_text(node: Node) -> bool:
    return isinstance(node.value, str) and bool(node.value)


def _not_text(piece: str, node: Node) -> Finding:
    message = f"a student piece expected, got {node.plain()!r}"
    return node.place.finding(Problem((piece,), "bad-type", message, "put the text in quotes"))


def _unknown(text: str, place: Place, side: Named) -> Finding:
    message = f"the {side.who}'s tokenizer has no piece {text!r}"
    hint = "a piece is named by its text, with its leading space"
    for other in (f" {text}", text.strip()):
        if other != text and side.find(other) is not None:
            hint = f"it has {other!r}"
    return place.finding(Problem((), "unknown-piece", message, hint))
