"""Rules about datasets, wherever they stand in the recipe."""

import re
from collections.abc import Iterator

from dudi_kit.recipe.checks.complaint import MOVING, Complaint, Rule
from dudi_kit.recipe.derive import extra_texts
from dudi_kit.recipe.diagnostics import Path
from dudi_kit.recipe.paths import HUB_NAME
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.data import BuiltinRows, Dataset, FileRows, HubRows, LanguageColumn
from dudi_kit.recipe.schema.evaluation import Task

LANGUAGE = "{language}"


def datasets(recipe: Recipe) -> Iterator[tuple[Path, Dataset]]:
    """Every dataset of the recipe, with its path."""
    for section in ("train", "held_out"):
        for name, dataset in getattr(recipe.data, section).items():
            yield ("data", section, name), dataset
    for name, task in recipe.evaluation.tasks.items():
        if isinstance(task, Task):
            yield ("evaluation", "tasks", name, "data"), task.data
    for name, dataset in extra_texts(recipe.student).items():
        yield ("student", "vocabulary", "extra", name), dataset


def rows_have_a_language(recipe: Recipe) -> Iterator[Complaint]:
    """One for all, a column, or one for each file; exactly one of these."""
    for path, dataset in datasets(recipe):
        if not isinstance(dataset, BuiltinRows):
            yield from _language(path, dataset)


def _language(path: Path, dataset: FileRows | HubRows) -> Iterator[Complaint]:
    key, pattern = ("path", dataset.path) if isinstance(dataset, FileRows) else ("subset", dataset.subset or "")
    by_column, by_file = isinstance(dataset.language, LanguageColumn), LANGUAGE in pattern
    needs: tuple[Path, ...] = ((*path, "language"), (*path, "languages"), (*path, key))
    if dataset.language is None and dataset.languages is None:
        hint = "add 'languages: [id, th]'" if by_file else "add 'language: id' or 'language: {column: …}'"
        yield Complaint(path, "needs-language", "no language is given for these rows", hint, needs)
    elif by_file and dataset.languages is None:
        message = f"{LANGUAGE} stands for each of 'languages', and there are none"
        yield Complaint((*path, key), "needs-language", message, "add 'languages: [id, th]'", needs)
    elif dataset.languages is not None and dataset.language is not None and not by_column:
        message = "'language' and 'languages' exclude each other, unless the language stands in a column"
        yield Complaint((*path, "languages"), "exclusive", message, "remove one of them", needs, at_key=True)
    elif dataset.languages is not None and not by_column and not by_file:
        message = f"'languages' needs {LANGUAGE} in '{key}', to tell which rows are of which"
        hint = f"write {LANGUAGE} into '{key}', or name the column: 'language: {{column: …}}'"
        yield Complaint((*path, "languages"), "needs-language", message, hint, needs)


def languages_are_named_once(recipe: Recipe) -> Iterator[Complaint]:
    """A second mention would read the same rows twice."""
    for path, dataset in datasets(recipe):
        twice = sorted({code for code in dataset.languages or () if (dataset.languages or []).count(code) > 1})
        if twice:
            yield Complaint((*path, "languages"), "duplicate", f"{', '.join(twice)} named twice", "name each once")


def builtin_rows_describe_themselves(recipe: Recipe) -> Iterator[Complaint]:
    """Keys that the built-in corpus would ignore are refused."""
    for path, dataset in datasets(recipe):
        if isinstance(dataset, BuiltinRows):
            for key in sorted({"format", "language", "english", "key"} & dataset.model_fields_set):
                hint = "use 'languages' to keep some languages" if key == "language" else "remove it"
                yield Complaint((*path, key), "not-here", f"the built-in corpus has its own {key}", hint, at_key=True)


def hub_datasets_are_hub_names(recipe: Recipe) -> Iterator[Complaint]:
    """Never a local path, never a URL."""
    for path, dataset in datasets(recipe):
        # A name alone may be one of the datasets library's own readers: `json` would read what lies in the folder.
        if isinstance(dataset, HubRows) and not (re.fullmatch(HUB_NAME, dataset.hub) and "/" in dataset.hub):
            hint = "for files of your own use 'path'"
            yield Complaint((*path, "hub"), "bad-model-name", f"{dataset.hub!r} is no hub name (owner/name)", hint)


def hub_datasets_are_pinned(recipe: Recipe) -> Iterator[Complaint]:
    """A branch moves under the recipe's feet. A dataset that is named for each language is complained about once."""
    moving = [(path, rows) for path, rows in datasets(recipe) if isinstance(rows, HubRows) and rows.revision in MOVING]
    first = {(rows.hub, rows.revision): path for path, rows in reversed(moving)}
    for (hub, revision), path in reversed(first.items()):
        message = f"{revision!r} is a branch, which moves: the rows of {hub} may change"
        hint = "name a commit or a tag, or run with --frozen"
        yield Complaint((*path, "revision"), "unpinned", message, hint, severity="warning")


def english_files_need_a_key(recipe: Recipe) -> Iterator[Complaint]:
    """Rows of two files are joined by a column."""
    for path, dataset in datasets(recipe):
        if dataset.english is not None and dataset.english.path is not None and dataset.english.key is None:
            message = "rows of another file are joined by a column, and none is named"
            key = (*path, "english", "key")
            yield Complaint((*path, "english", "path"), "needs-key", message, "add 'key: …' beside it", (key,))


def something_is_drawn(recipe: Recipe) -> Iterator[Complaint]:
    """Datasets with weight 0 are left out."""
    train = recipe.data.train
    if all(dataset.weight == 0 for dataset in train.values()):
        needs = tuple(("data", "train", name, "weight") for name in train)
        yield Complaint(("data", "train"), "nothing-to-do", "every dataset has weight 0", "give one a weight", needs)


def only_training_rows_are_drawn(recipe: Recipe) -> Iterator[Complaint]:
    """Held-out rows and tasks are read once, as they are: keys about drawing would be ignored there."""
    for path, dataset in datasets(recipe):
        if path[:2] != ("data", "train"):
            for key in sorted({"weight", "demonstrate", "responses", "key", "labels"} & dataset.model_fields_set):
                message = f"'{key}' is about training rows"
                yield Complaint((*path, key), "no-effect", message, "remove it", at_key=True)


RULES: tuple[Rule, ...] = (
    rows_have_a_language,
    languages_are_named_once,
    builtin_rows_describe_themselves,
    hub_datasets_are_hub_names,
    hub_datasets_are_pinned,
    english_files_need_a_key,
    something_is_drawn,
    only_training_rows_are_drawn,
)
