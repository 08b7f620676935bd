"""`dudi-kit lock`, `lock --check` and `--frozen`: write down what a recipe depends on, and hold a run to it."""

import hashlib
import json
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from dudi_kit.console import err, notice, say
from dudi_kit.data.encode import Encoder
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import fingerprint
from dudi_kit.errors import LockMismatch
from dudi_kit.plan import lock as locks
from dudi_kit.plan.build import read_sides
from dudi_kit.plan.chain import Pin, Stage, build_chain
from dudi_kit.plan.hub import Reference, Resolved, pinned, references, resolve
from dudi_kit.plan.layout import write_json
from dudi_kit.recipe.load import LoadedRecipe


def write_lock(recipe: LoadedRecipe, file: Path) -> None:
    """Look at all that the recipe depends on, and write it down."""
    found = _look(recipe)
    before = _lock_before(recipe, file)
    write_json(file, found)
    changes = locks.differences(before, found) if before else []
    for change in changes:
        say(f"  {change}")
    stages, files = len(found["stages"]), len(found["files"])
    state = "" if before is None else f", {len(changes) or 'no'} change{'s' * (len(changes) != 1)}"
    say(f"locked: {file} ({stages} stage{'s' * (stages > 1)}, {files} file{'s' * (files > 1)}{state})")


def check_lock(recipe: LoadedRecipe, file: Path) -> None:
    """Look at everything anew, branches on the hub too; LockMismatch names all that has changed."""
    _refuse(locks.differences(locks.read(file, recipe.path), _look(recipe)), recipe, file)
    say(f"✓ {file} holds")


def pins_of(recipe: LoadedRecipe, file: Path) -> Pin:
    """What `--frozen` puts for the recipe's revisions, once everything is as the lock says; LockMismatch if it is not.

    Nothing is asked of the hub but what the lock names: its commits.
    """
    locked = locks.read(file, recipe.path)
    commits = locks.commits_in(locked)
    with tempfile.TemporaryDirectory(prefix="dudi-kit-") as workspace, err.status(f"comparing with {file.name}"):
        written = build_chain(recipe.recipe, recipe.path, Path(workspace), root=recipe.root)
        wanted = {reference: commits.get(reference, "") for reference in _wanted(written)}
        main = build_chain(recipe.recipe, recipe.path, Path(workspace), partial(pinned, commits=commits), recipe.root)
        found = locks.outline(recipe, written, main, {r: commit for r, commit in wanted.items() if commit})
        for unknown in (reference for reference, commit in wanted.items() if not commit):
            found["hub"][unknown.kind].setdefault(unknown.name, {})[unknown.revision] = "named by the recipe"
        without_tokenizers = locks.without_tokenizers(locked)
        _refuse(locks.differences(without_tokenizers, found), recipe, file)  # before anything is fetched or trained
        _refuse(locks.differences(locked, _with_tokenizers(found, main)), recipe, file)
    return partial(pinned, commits=commits)


def require_untouched(stage: Stage) -> None:
    """LockMismatch where a trained model is not as its training left it: the run's hash says what it was made from, not
    what lies there now."""
    try:
        recorded = json.loads(stage.run.environment.read_text(encoding="utf-8"))["final"]
    except (OSError, ValueError, KeyError, TypeError):
        recorded = {}
    changed = sorted(name for name, _ in recorded.items() ^ locks.model_hashes(stage.run.final).items())
    if not changed:
        return
    what = f"{', '.join(dict.fromkeys(changed))} not as training left it" if recorded else "no record of its training"
    raise LockMismatch(f"{stage.run.final}: {what}. Remove {stage.run.path}, and it is built again.")


def _look(recipe: LoadedRecipe) -> dict[str, Any]:
    """The lock of a recipe as things are now."""
    with tempfile.TemporaryDirectory(prefix="dudi-kit-") as workspace, err.status("looking at what the recipe reads"):
        written = build_chain(recipe.recipe, recipe.path, Path(workspace), root=recipe.root)
        resolved = resolved_aloud(_wanted(written))
        main = build_chain(
            recipe.recipe, recipe.path, Path(workspace), partial(pinned, commits=resolved.commits), recipe.root
        )
        return _with_tokenizers(locks.outline(recipe, written, main, resolved.commits), main)


def _wanted(main: Stage) -> set[Reference]:
    return {reference for stage in main.in_order() for reference in references(stage.recipe)}


def resolved_aloud(wanted: Iterable[Reference]) -> Resolved:
    """The commits of hub names; what only the local cache could tell is said."""
    resolved = resolve(wanted)
    for reference in resolved.from_cache:
        commit = resolved.commits[reference]
        notice(f"the hub can't be reached: {reference} is taken as {commit[:12]}, which the local cache holds")
    return resolved


def _with_tokenizers(outline: dict[str, Any], main: Stage) -> dict[str, Any]:
    """The whole lock: with what decides which ids each model reads."""
    tokenizers = {stage.run.path: _tokenizers(stage) for stage in main.in_order()}
    roles = locks.roles(main)
    stages = {
        role: {**stage, "tokenizers": tokenizers[roles[role].run.path]} for role, stage in outline["stages"].items()
    }
    return {**outline, "stages": stages}


def _tokenizers(stage: Stage) -> dict[str, Any]:
    sides = read_sides(stage, Ledger())
    encoders = {"student": sides.student} | ({"teacher": sides.teaching.encoder} if sides.teaching else {})
    return {who: _facts(encoder) for who, encoder in encoders.items()}


def _facts(encoder: Encoder) -> dict[str, Any]:
    tokenizer = encoder.tokenizer
    return {
        "pieces": len(tokenizer),
        "end_of_turn": tokenizer.convert_ids_to_tokens(encoder.end_of_turn_id),
        "fingerprint": fingerprint(tokenizer),
        "chat_template": hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest(),
    }


def _lock_before(recipe: LoadedRecipe, file: Path) -> dict[str, Any] | None:
    """The lock that is about to be replaced; a broken one is simply written anew."""
    try:
        return locks.read(file, recipe.path)
    except LockMismatch:
        return None


def _refuse(differences: list[locks.Difference], recipe: LoadedRecipe, file: Path) -> None:
    if not differences:
        return
    lines = "\n".join(f"  {difference}" for difference in differences)
    count = f"{len(differences)} thing{'s' * (len(differences) > 1)}"
    raise LockMismatch(
        f"{count} not as {file} says:\n{lines}\n"
        f"Undo them, or accept them with `dudi-kit lock {recipe.path.name}` (and the same overrides)."
    )
