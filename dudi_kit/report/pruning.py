"""A student that is cut from a bigger model, for people: what stays of it, and what that means for each language."""

from typing import NamedTuple

from dudi_kit.plan.schema import PlannedPruning
from dudi_kit.report.facts import short_count

HEADS = ("chosen by", "as before", "other texts", "as before", "tokens", "pieces", "its own", "cost")
"""Columns after the language."""

LEGEND = (
    "Texts are prompts and responses. The pieces were chosen by the first ones, the others are those of held-out rows "
    "and tasks; as before: cut into the same pieces as by the whole tokenizer; tokens: how many more the others take. "
    "Its own: pieces that no other language needs; cost: their parameters."
)


class PrunedRow(NamedTuple):
    """One language, as texts under HEADS."""

    language: str
    cells: tuple[str, ...]


def kept(pruning: PlannedPruning) -> str:
    """`6 of 18 layers (0 3 7 10 14 17) and 28,739 of 262,144 pieces: 51.8 M of 268 M parameters`."""
    numbers = " ".join(map(str, pruning.layers))
    all_layers = len(pruning.layers) == pruning.layers_before
    layers = f"all {pruning.layers_before} layers" if all_layers else _of(pruning) + f" layers ({numbers})"
    pieces = f"{pruning.rows_after:,} of {pruning.rows_before:,} pieces" if pruning.languages else "all pieces"
    parameters = f"{short_count(pruning.parameters_after)} of {short_count(pruning.parameters_before)} parameters"
    embeddings = f"{short_count(pruning.embeddings_after)} of {short_count(pruning.embeddings_before)}"
    return f"{layers} and {pieces}: {parameters}, of them in embeddings {embeddings}"


def _of(pruning: PlannedPruning) -> str:
    return f"{len(pruning.layers)} of {pruning.layers_before}"


def pruned_rows(pruning: PlannedPruning) -> list[PrunedRow]:
    """What trimming the vocabulary means for each language."""
    return [
        PrunedRow(
            code,
            (
                f"{row.texts:,}",
                _share(row.same, row.texts),
                f"{row.other_texts:,}",
                _share(row.other_same, row.other_texts),
                _more(row.other_tokens_before, row.other_tokens_after),
                f"{row.pieces:,}",
                f"{row.own_pieces:,}",
                short_count(row.own_pieces * pruning.piece_parameters),
            ),
        )
        for code, row in pruning.languages.items()
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _more(before: int, after: int) -> str:
    return f"{after / before - 1:+.1%}" if before else "–"
