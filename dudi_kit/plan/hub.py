"""What a recipe names on the hub, and the commit that a name and a revision stand for."""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

from dudi_kit.data.sources import COMMIT, hub_error
from dudi_kit.errors import DataError, EnvironmentLack, ModelError
from dudi_kit.recipe.publish import recipe_from_resolved, resolved_json
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.evaluation import Evaluation
from dudi_kit.recipe.schema.task import HubTable
from dudi_kit.recipe.task_places import places

DEFAULT_BRANCH = "main"
PATIENCE = 10
"""Seconds that the hub has for one answer."""


class Reference(NamedTuple):
    """A repository on the hub as a recipe names it."""

    kind: Literal["models", "datasets"]
    name: str
    """`owner/name`."""

    revision: str
    """Branch, tag or commit; a recipe that names none means `main`."""

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


Commits = Mapping[Reference, str]
"""The commit of each reference."""


class Resolved(NamedTuple):
    """The commits of some references, and those of them that only the local cache could tell."""

    commits: dict[Reference, str]
    from_cache: list[Reference]


class _Place(NamedTuple):
    """Where a resolved recipe holds a hub name, and where the revision beside it."""

    kind: Literal["models", "datasets"]
    section: dict[str, Any]
    name: str
    revision: str

    @property
    def reference(self) -> Reference:
        return Reference(self.kind, self.section[self.name], self.section[self.revision] or DEFAULT_BRANCH)


def references(recipe: Recipe) -> set[Reference]:
    """Everything on the hub that the recipe names, itself or by a task."""
    own = {place.reference for place in _places(json.loads(resolved_json(recipe)))}
    return own | {reference for _, reference in of_tasks(recipe.evaluation)}


def of_tasks(evaluation: Evaluation) -> Iterator[tuple[str, Reference]]:
    """Entry of `evaluation.tasks` → each dataset that its task file names and that has no local copy."""
    for place in places(evaluation):
        if isinstance(place.source, HubTable):
            yield place.entry, Reference("datasets", place.source.hub, place.source.revision)


def pinned(recipe: Recipe, commits: Commits) -> Recipe:
    """The recipe with the commit of every reference that has one in place of its revision."""
    settings = json.loads(resolved_json(recipe))
    own = [place for place in _places(settings) if place.reference in commits]
    for place in own:
        place.section[place.revision] = commits[place.reference]
    tasks = {pair: commits[pair[1]] for pair in of_tasks(recipe.evaluation) if pair[1] in commits}
    for (entry, reference), commit in tasks.items():
        settings["evaluation"]["tasks"][entry]["revisions"][reference.name] = commit
    return recipe_from_resolved(json.dumps(settings)) if own or tasks else recipe


def resolve(wanted: Iterable[Reference]) -> Resolved:
    """Ask the hub for the commits; offline, the local cache knows what was fetched before.

    ModelError, DataError: the hub has no such repository or revision. EnvironmentLack: neither hub nor cache can tell.
    """
    commits, from_cache = {}, []
    for reference in sorted(wanted):
        if COMMIT.fullmatch(reference.revision):
            commits[reference] = reference.revision
            continue
        try:
            commits[reference] = _ask(reference)
        except EnvironmentLack as lack:
            commits[reference] = _cached(reference, lack)
            from_cache.append(reference)
    return Resolved(commits, from_cache)


def _ask(reference: Reference) -> str:
    from huggingface_hub import HfApi

    api = HfApi()
    ask = partial(api.model_info if reference.kind == "models" else api.dataset_info, timeout=PATIENCE)
    try:
        commit = ask(reference.name, revision=reference.revision).sha
    except Exception as error:
        what = f"{reference.kind.removesuffix('s')} {reference}"
        raise hub_error(what, error, ModelError if reference.kind == "models" else DataError) from error
    assert commit is not None, "the hub names the commit of a revision that it knows"
    return commit


def _cached(reference: Reference, lack: EnvironmentLack) -> str:
    """What the reference stood for when it was fetched last."""
    from huggingface_hub import constants

    repository = f"{reference.kind}--{reference.name.replace('/', '--')}"
    file = Path(constants.HF_HUB_CACHE) / repository / "refs" / reference.revision
    try:
        commit = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        raise lack from None
    if not COMMIT.fullmatch(commit):
        raise lack
    return commit


def _places(settings: dict[str, Any]) -> Iterator[_Place]:
    """Every hub name of a resolved recipe."""
    return (place for place in _named(settings) if not PurePath(place.section[place.name]).is_absolute())


def _named(settings: dict[str, Any]) -> Iterator[_Place]:
    for role in ("teacher", "student"):
        model = settings[role] or {}
        tokenizer = model.get("tokenizer")
        if "model" in model:
            yield _Place("models", model, "model", "revision")
        if isinstance(tokenizer, str):
            yield _Place("models", model, "tokenizer", "tokenizer_revision")
        elif isinstance(tokenizer, dict) and tokenizer.get("from", "teacher") != "teacher":
            yield _Place("models", tokenizer, "from", "revision")
    tasks = (task["data"] for task in settings["evaluation"]["tasks"].values() if "data" in task)
    trimmed = settings["student"].get("vocabulary")
    extra = trimmed["extra"].values() if isinstance(trimmed, dict) else ()
    for dataset in (*settings["data"]["train"].values(), *settings["data"]["held_out"].values(), *tasks, *extra):
        if "hub" in dataset:
            yield _Place("datasets", dataset, "hub", "revision")
