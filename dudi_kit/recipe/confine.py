"""What a recipe by reference may read of this machine: the files below its own folder, which were fetched with it.

A recipe from the user's disk may name any path, and the plan lists those outside. One by URL or hub reference is
somebody else's: loaded with a `root`, it, its parents and the recipes that it names can't leave that folder, neither by
an absolute path nor by `..`, `~` or a symbolic link. What the user says on the command line is the user's own.
No recipe at all, wherever it came from, may name a server on another machine.
"""

import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path as FilePath
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import urlsplit

from dudi_kit.recipe.diagnostics import Finding, Path, Problem
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.paths import NamedPath, named_paths
from dudi_kit.recipe.yaml_nodes import Node

REASON = "a recipe by reference reads only what lies below its own folder, and the hub"
NVME_PATH: Path = ("deepspeed", "offload", "nvme_path")
NVME_HINT = "say the folder yourself: --deepspeed.offload.nvme_path=…"
PLACEHOLDER = "{language}"
TRACKERS: Path = ("output", "trackers")
SENDING = {"wandb": "project", "trackio": "space"}
"""Trackers that may send metrics to others, and the key by which a user says where."""

MODELS = frozenset({"model", "tokenizer", "from"})
"""Last keys of the places that may name a folder with a model or a tokenizer."""

COLLECTIONS = frozenset({"data_home", "seahelm_home"})
"""Last keys of the places that name a folder with benchmarks."""


SERVER: Path = ("rollouts", "engine", "url")
"""The place that may name a server."""


class NamedFile(NamedTuple):
    """A file below a recipe's folder that it needs."""

    path: str
    """Relative to the folder."""

    is_recipe: bool


def outside(tree: Node, root: FilePath) -> list[Finding]:
    """A finding for each path, and for the output folder, that a recipe by reference must not name.

    Nothing that they lead to is looked at; their nodes are marked, so that nothing else is said about them.
    """
    problems = [(named.node, problem) for named in named_paths(tree) if (problem := _stray(named, root)) is not None]
    problems += _output(tree)
    for node, _ in problems:
        node.flawed = True
    return [node.place.finding(problem) for node, problem in problems]


def foreign_servers(tree: Node) -> list[Finding]:
    """A finding where a recipe names a server on another machine, which would be sent the training prompts."""
    node = tree.at(SERVER)
    if node is None or not isinstance(node.value, str) or _is_users(node) or _on_this_machine(node.value):
        return []
    node.flawed = True
    message = f"{node.value!r} is not on this machine, and would be sent the training prompts"
    hint = f"name it on the command line, where the words are yours: --{'.'.join(map(str, SERVER))}={node.value}"
    return [node.place.finding(Problem(SERVER, "foreign-server", message, hint))]


def hush(tree: Node) -> list[Finding]:
    """Turn off, with a warning, the trackers through which somebody else's recipe would send metrics.

    A key that the user gives on the command line turns a tracker on.
    """
    trackers = tree.at(TRACKERS)
    if trackers is None or not isinstance(trackers.value, dict):
        return []
    findings = []
    for name, key in SENDING.items():
        tracker = trackers.value.get(name)
        if tracker is None or not _sends(name, tracker) or _is_users(tracker.child(key) or tracker):
            continue
        message = f"a recipe by reference sends no metrics: {name} is off"
        hint = f"--{'.'.join(map(str, TRACKERS))}.{name}.{key}=… turns it on"
        findings.append(tree.locate(Problem((*TRACKERS, name), "sends", message, hint, "warning")))
        del trackers.value[name]
    return findings


def _sends(name: str, tracker: Node) -> bool:
    if name == "wandb":
        mode = tracker.child("mode")
        return mode is None or mode.value != "offline"
    return tracker.child("space") is not None


def named_files(tree: Node, root: FilePath) -> Iterator[NamedFile]:
    """The files below its folder that a recipe names, those outside left out; `{language}` filled in."""
    for named in named_paths(tree):
        if not _is_users(named.node) and _stray(named, root) is None:
            for code in _languages(tree, named):
                path = os.path.relpath(named.path.replace(PLACEHOLDER, code), root)
                yield NamedFile(path, is_recipe=named.where[-1] == "recipe")


def is_inside(path: str, root: FilePath, *, written: str = "") -> bool:
    """Whether a path stays in a folder, links followed. written: as the recipe has it; absolute is outside anyway."""
    if written.startswith("~") or PurePath(written).is_absolute():
        return False
    try:
        real = {os.path.realpath(path.replace(PLACEHOLDER, code)) for code in LANGUAGES}
    except ValueError:  # \0
        return False
    folder = os.path.realpath(root)
    return all(PurePath(os.path.normpath(p)).is_relative_to(folder) for p in real)


def is_address(written: str) -> bool:
    """A URL or a hub reference in the place of a path."""
    return "://" in written or written.startswith("hub:")


def _stray(named: NamedPath, root: FilePath) -> Problem | None:
    written = str(named.node.value)
    if _is_users(named.node):
        return None
    if named.where == NVME_PATH:
        return Problem(named.where, "outside", "a recipe by reference writes to its run directory only", NVME_HINT)
    if not is_inside(named.path, root, written=written):
        return Problem(named.where, "outside", f"{written!r} lies outside the recipe's folder", REASON)
    if is_address(written):
        return Problem(named.where, "outside", f"a path expected, got the address {written!r}", REASON)
    if named.where[-1] in COLLECTIONS:
        message = f"{written!r} is a folder, and a recipe by reference brings no benchmarks"
        return Problem(named.where, "outside", message, "say on the command line where yours are")
    if named.where[-1] in MODELS:
        message = f"{written!r} is a folder, and a recipe by reference brings no weights"
        return Problem(named.where, "outside", message, "name a model on the hub, with its revision")
    return None


def _output(tree: Node) -> list[tuple[Node, Problem]]:
    """`output.folder` through a link that leaves the current folder; the other ways out no recipe may take."""
    *_, node = tree.trail(("output", "folder"))
    written = node.value
    if not isinstance(written, str) or _is_users(node) or is_inside(written, FilePath.cwd(), written=written):
        return []
    message = f"{written!r} leads out of the current folder"
    return [(node, Problem(("output", "folder"), "outside", message, "the option --output can name any folder"))]


def _is_users(node: Node) -> bool:
    """From the command line."""
    return not node.place.source.numbered


def _on_this_machine(address: str) -> bool:
    """A loopback address. What is no address at all is told by the schema."""
    try:
        host = urlsplit(address).hostname
        return host in (None, "localhost") or ip_address(host).is_loopback
    except ValueError:
        return not is_address(address)


def _languages(tree: Node, named: NamedPath) -> list[str]:
    """What `{language}` stands for in a path; one empty text where it has none."""
    if PLACEHOLDER not in named.path:
        return [""]
    lists: list[Path] = [(*named.where[:end], "languages") for end in range(len(named.where))]
    written = [nodes[-1].plain() for path in lists if len(nodes := tree.trail(path)) > len(path)]
    # As a text in the place of a list is a mistake that is told later, so is a code that is none.
    return [code for codes in written if isinstance(codes, list) for code in codes if str(code) in LANGUAGES]
