"""Rules about `verbalizer`, `signals` and `rollouts`: what the objective is made of."""

from collections.abc import Iterator

from dudi_kit.recipe.checks.complaint import Complaint, Rule, written
from dudi_kit.recipe.diagnostics import Path
from dudi_kit.recipe.schema import Recipe


def vocabulary_keys_fit_the_mapping(recipe: Recipe) -> Iterator[Complaint]:
    """Keys that a named mapping would ignore are refused; under `auto` they speak for the case that they are needed."""
    vocabulary = recipe.verbalizer.vocabulary
    ignored = {"shared": {"overrides", "meets", "min_coverage", "below"}, "remap": {"meets"}}
    for key in sorted(ignored.get(vocabulary.mapping, set()) & vocabulary.model_fields_set):
        path = ("verbalizer", "vocabulary", key)
        message = f"{key!r} has no effect under the mapping {vocabulary.mapping!r}"
        needs = (("verbalizer", "vocabulary", "mapping"),)
        yield Complaint(path, "no-effect", message, "remove it, or set mapping to auto or align", needs, at_key=True)


def label_words_are_declared(recipe: Recipe) -> Iterator[Complaint]:
    """A file of label words serves rows that declare their set."""
    train = recipe.data.train
    if recipe.verbalizer.vocabulary.label_words is not None and all(rows.labels is None for rows in train.values()):
        message = "no training row declares a set of label words"
        hint = "add 'labels: …' to a dataset, or remove this key"
        needs: tuple[Path, ...] = tuple(("data", "train", name, "labels") for name in train)
        yield Complaint(("verbalizer", "vocabulary", "label_words"), "no-effect", message, hint, needs, at_key=True)


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
        keys: tuple[Path, ...] = (("rollouts", "max_new_tokens"), ("data", "max_length"))
        hint = "lower rollouts.max_new_tokens, or raise data.max_length"
        needs = (*keys, *(("signals", name, "weight") for name in active))
        yield Complaint(written(recipe, *keys), "too-long", message, hint, needs)


def steps_without_samples_learn(recipe: Recipe) -> Iterator[Complaint]:
    """Between two samplings something must be left to learn from."""
    signals, every = recipe.signals, ("rollouts", "every")
    active = [name for name in type(signals).model_fields if getattr(signals, name).weight > 0]
    if recipe.rollouts.every > 1 and active and set(active) <= {"sequence", "on_policy"}:
        message = (
            f"{recipe.rollouts.every} leaves steps in which no signal acts: {' and '.join(active)} learn from samples"
        )
        needs: tuple[Path, ...] = tuple(("signals", name, "weight") for name in type(signals).model_fields)
        yield Complaint(every, "nothing-to-do", message, "remove it, or give a signal on the corpus a weight", needs)


RULES: tuple[Rule, ...] = (
    vocabulary_keys_fit_the_mapping,
    label_words_are_declared,
    some_signal_is_on,
    rollouts_fit,
    steps_without_samples_learn,
)
