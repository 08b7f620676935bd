"""Labels against labels: balanced accuracy and its normalisation, macro F1, null count. Values lie between 0 and 1.

`None` stands for an answer without a label. It is never a gold label, so it lowers a recall and nothing else, except
where a mean goes over predicted classes too.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from dudi_kit.errors import DataError

Label = str | None


def hits(gold: Sequence[str], parsed: Sequence[Label]) -> list[bool]:
    """Whether each row is right."""
    return [right == said for right, said in zip(gold, parsed, strict=True)]


def balanced_accuracy(gold: Sequence[str], parsed: Sequence[Label]) -> float:
    """Mean of the recalls of the labels that occur among `gold`."""
    rows, right = Counter(gold), Counter(label for label, hit in zip(gold, hits(gold, parsed), strict=True) if hit)
    return sum(right[label] / count for label, count in rows.items()) / len(rows)


def above_chance(accuracy: float, choices: int) -> float:
    """(accuracy − 1/k) / (1 − 1/k): 0 for guessing, 1 for all right, below 0 for worse than guessing.

    choices: k, the labels of the full set, of which a subset may lack some.
    """
    if choices < 2:
        raise DataError(f"{choices} label: chance is always right, so there is nothing to normalise against")
    return (accuracy - 1 / choices) / (1 - 1 / choices)


def macro_f1(gold: Sequence[str], parsed: Sequence[Label], classes: Iterable[Label] | None = None) -> float:
    """F1 averaged over `classes`: by default all that are gold or were answered, null included."""
    over = {*gold, *parsed} if classes is None else set(classes)
    golds: Counter[Label] = Counter(gold)
    said: Counter[Label] = Counter(parsed)
    right: Counter[Label] = Counter(label for label, hit in zip(gold, hits(gold, parsed), strict=True) if hit)
    return sum(2 * right[label] / (golds[label] + said[label]) for label in over if right[label]) / len(over)


def null_weighted_f1(gold: Sequence[str], parsed: Sequence[Label]) -> float:
    """Macro F1 over the gold labels × share of answers with a label."""
    return macro_f1(gold, parsed, gold) * (1 - list(parsed).count(None) / len(parsed))
