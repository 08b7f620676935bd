"""Rules about what a teacher reads and writes before training: demonstrations, and responses of its own."""

from collections.abc import Iterator

from dudi_kit.recipe.checks.complaint import Complaint, Rule
from dudi_kit.recipe.derive import asks_for_responses, demonstrated, reading_terms
from dudi_kit.recipe.diagnostics import Path
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.data import BuiltinRows, Dataset

LIST: Path = ("verbalizer", "demonstration", "languages")
SOURCE: Path = ("verbalizer", "demonstration", "source")

BUILTIN = ("en", "id", "ms", "vi", "th", "ta", "tl", "my")
"""Languages of the corpus that ships."""


def _uses(recipe: Recipe) -> tuple[Path, ...]:
    """What makes a demonstration be read: the paths that complaints about it rest on."""
    weights = tuple(("signals", term, "weight") for term in reading_terms(recipe))
    return (LIST, SOURCE, *weights, *(("data", "train", name, "demonstrate") for name in demonstrated(recipe)))


def _is_read(recipe: Recipe) -> bool:
    return bool((reading_terms(recipe) and recipe.teacher is not None) or demonstrated(recipe))


def parallel_versions_are_there(recipe: Recipe) -> Iterator[Complaint]:
    """`parallel` shows versions of the row in other languages; the data has to say where they are."""
    demonstration = recipe.verbalizer.demonstration
    train = recipe.data.train
    if demonstration.source != "parallel" or not _is_read(recipe):
        return
    keyed = any(isinstance(rows, BuiltinRows) or rows.key for rows in train.values())
    # With `same` among the languages each row can at least be shown itself; the ledger counts what is missing.
    if demonstration.languages == ["en"] and not keyed and not any(rows.english for rows in train.values()):
        message = "the verbalizer shows the English version of a row, and no dataset says where it is"
        hint = "add 'english: {…}' to one, or set verbalizer.demonstration.source to teacher, pool or none"
        needs = tuple(("data", "train", name, "english") for name in train)
        yield Complaint(("data", "train"), "needs-english", message, hint, (*needs, *_uses(recipe)))
    others = [code for code in demonstration.languages if code not in ("same", "en")]
    if others and not keyed:
        message = f"the verbalizer shows the {', '.join(others)} version of a row, and no dataset says how to find it"
        hint = "name the column that rows of one item share: 'key: …' in a dataset; or set source to teacher or pool"
        keys = tuple(("data", "train", name, "key") for name in train)
        yield Complaint(LIST, "needs-versions", message, hint, (*keys, *_uses(recipe)))


def pool_has_the_languages(recipe: Recipe) -> Iterator[Complaint]:
    """`pool` draws training rows, so that a language without any can't be shown."""
    demonstration = recipe.verbalizer.demonstration
    if demonstration.source != "pool" or not _is_read(recipe):
        return
    there = set[str]().union(*(_languages(dataset) for dataset in recipe.data.train.values() if dataset.weight))
    if missing := [code for code in demonstration.languages if code not in {"same", *there}]:
        message = f"the verbalizer draws rows in {', '.join(missing)}, and no dataset has any"
        needs = tuple(("data", "train", name) for name in recipe.data.train)
        hint = "remove it from the list, add such rows, or set source to teacher"
        yield Complaint(LIST, "needs-versions", message, hint, (*needs, *_uses(recipe)))


def _languages(dataset: Dataset) -> set[str]:
    """Languages that the rows of a dataset may have, or be shown in."""
    english = {"en"} if dataset.english or isinstance(dataset, BuiltinRows) else set()
    if dataset.languages is not None:
        return {*dataset.languages, *english}
    if isinstance(dataset, BuiltinRows):
        return {*BUILTIN}
    return {dataset.language, *english} if isinstance(dataset.language, str) else {*LANGUAGES}


def asking_needs_a_teacher(recipe: Recipe) -> Iterator[Complaint]:
    """Only a teacher can write what is asked of one."""
    if recipe.teacher is not None:
        return
    hint = "add 'teacher: …', or remove it"
    for name in asks_for_responses(recipe):
        path = ("data", "train", name, "responses")
        yield Complaint(path, "needs-teacher", "the teacher is to write them, and there is none", hint, (("teacher",),))
    if demonstrated(recipe) and recipe.verbalizer.demonstration.source == "teacher":
        message = "the teacher is to write demonstrations, and there is none"
        yield Complaint(SOURCE, "needs-teacher", message, "add 'teacher: …', or choose another source", (("teacher",),))


def demonstrated_rows_are_for_teachers(recipe: Recipe) -> Iterator[Complaint]:
    """A student never reads a demonstration; its teacher would read one inside the other."""
    signals = [term for term in ("off_policy", "on_policy") if getattr(recipe.signals, term).weight > 0]
    if recipe.teacher is None or not signals:
        return
    for name in demonstrated(recipe):
        message = f"the student would read demonstrations, which signals.{signals[0]} keeps for its teacher"
        hint = "use it to train a teacher, by sft or dft alone"
        needs: tuple[Path, ...] = (("teacher",), *(("signals", term, "weight") for term in signals))
        yield Complaint(("data", "train", name, "demonstrate"), "not-together", message, hint, needs)


RULES: tuple[Rule, ...] = (
    parallel_versions_are_there,
    pool_has_the_languages,
    asking_needs_a_teacher,
    demonstrated_rows_are_for_teachers,
)
