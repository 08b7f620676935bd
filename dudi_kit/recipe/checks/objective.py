"""Rules about `verbalizer`, `signals` and `rollouts`: what the objective is made of."""

from collections.abc import Iterator

from dudi_kit.recipe.checks.complaint import Complaint, Rule
from dudi_kit.recipe.diagnostics import Path
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.data import BuiltinRows


def demonstrations_need_english(recipe: Recipe) -> Iterator[Complaint]:
    """`parallel` shows the row's English version; some training row must have one."""
    demonstration = recipe.verbalizer.demonstration
    active = [term for term in demonstration.terms if getattr(recipe.signals, term).weight > 0]
    is_used = bool(active) and recipe.teacher is not None
    # With `same` among the languages each row can at least be shown itself; the ledger counts what is missing.
    if demonstration.source != "parallel" or "same" in demonstration.languages or not is_used:
        return
    if not any(isinstance(rows, BuiltinRows) or rows.english for rows in recipe.data.train.values()):
        message = "the verbalizer shows the English version of a row, and no dataset says where it is"
        hint = "add 'english: {…}' to one, or set verbalizer.demonstration.source to pool or none"
        needs: tuple[Path, ...] = tuple(("data", "train", name, "english") for name in recipe.data.train)
        needs += (
            ("verbalizer", "demonstration", "languages"),
            ("verbalizer", "demonstration", "source"),
            *(("signals", term, "weight") for term in active),
        )
        yield Complaint(("data", "train"), "needs-english", message, hint, needs)


def mapping_is_available(recipe: Recipe) -> Iterator[Complaint]:
    """Teachers with other tokenizers come later."""
    mapping = recipe.verbalizer.vocabulary.mapping
    if mapping in ("remap", "align"):
        path = ("verbalizer", "vocabulary", "mapping")
        message = f"{mapping!r} is not available in this version, only 'shared'"
        hint = "teacher and student must have the same pieces; 'auto' looks whether they do"
        yield Complaint(path, "not-available", message, hint)


def some_signal_is_on(recipe: Recipe) -> Iterator[Complaint]:
    """An objective of nothing teaches nothing."""
    names = list(type(recipe.signals).model_fields)
    if all(getattr(recipe.signals, name).weight == 0 for name in names):
        needs = tuple(("signals", name, "weight") for name in names)
        yield Complaint(("signals",), "nothing-to-do", "every signal has weight 0", "give one a weight", needs)


def rollouts_fit(recipe: Recipe) -> Iterator[Complaint]:
    """A sample as long as a whole row leaves no room for its prompt."""
    active = [name for name in ("sequence", "on_policy") if getattr(recipe.signals, name).weight > 0]
    if active and recipe.rollouts.max_new_tokens >= recipe.data.max_length:
        message = (
            f"a sample of {recipe.rollouts.max_new_tokens} tokens leaves no room for its prompt within data.max_length "
            f"({recipe.data.max_length})"
        )
        needs: tuple[Path, ...] = (("data", "max_length"), *(("signals", name, "weight") for name in active))
        yield Complaint(
            ("rollouts", "max_new_tokens"), "too-long", message, "lower it, or raise data.max_length", needs
        )


RULES: tuple[Rule, ...] = (
    demonstrations_need_english,
    mapping_is_available,
    some_signal_is_on,
    rollouts_fit,
)
