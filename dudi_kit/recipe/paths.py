"""Relative paths in a recipe become absolute, each from the folder of the text that it was written in.

After this, the other rooms see absolute paths only, and whatever is not absolute in a model's place is a hub name.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import NamedTuple

from dudi_kit.recipe.diagnostics import Path
from dudi_kit.recipe.yaml_nodes import Node

HUB_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?"
"""`owner/name`, or a name alone. Letters of other scripts that look like these are none."""


def _always(text: str, folder: FilePath) -> bool:
    return True


def _if_folder(text: str, folder: FilePath) -> bool:
    """A model: `./…`, `../…`, `/…`, `~/…`, or a folder beside the text; else a hub name, or the word `teacher`."""
    written_as_path = text.startswith(("./", "../", "/", "~/")) or text in (".", "..")
    return written_as_path or (text != "teacher" and os.path.isdir(folder / text))


def _if_yaml(text: str, folder: FilePath) -> bool:
    """A task file; any other text is the name of a task that ships."""
    return text.endswith((".yaml", ".yml"))


def _if_jinja(text: str, folder: FilePath) -> bool:
    return text.endswith(".jinja")


DATASETS: tuple[Path, ...] = (
    ("data", "train", "*"),
    ("data", "held_out", "*"),
    ("evaluation", "tasks", "*", "data"),
    ("student", "vocabulary", "extra", "*"),
)

PATH_FIELDS: tuple[tuple[Path, Callable[[str, FilePath], bool]], ...] = (
    (("teacher", "recipe"), _always),
    (("student", "recipe"), _always),
    *(((*dataset, "path"), _always) for dataset in DATASETS),
    *(((*dataset, "english", "path"), _always) for dataset in DATASETS),
    (("verbalizer", "demonstration", "template"), _always),
    (("verbalizer", "demonstration", "template", "*"), _always),
    (("verbalizer", "vocabulary", "label_words"), _always),
    (("verbalizer", "vocabulary", "overrides"), _always),
    (("teacher", "model"), _if_folder),
    (("teacher", "tokenizer"), _if_folder),
    (("student", "model"), _if_folder),
    (("student", "tokenizer"), _if_folder),
    (("student", "tokenizer", "from"), _if_folder),
    (("evaluation", "tasks", "*", "task"), _if_yaml),
    (("evaluation", "data_home"), _always),
    (("evaluation", "seahelm_home"), _always),
    (("teacher", "chat_template"), _if_jinja),
    (("student", "chat_template"), _if_jinja),
    (("deepspeed", "offload", "nvme_path"), _always),
)
"""Every field that may hold a path, and when its text is one."""


class NamedPath(NamedTuple):
    """A path that a recipe names."""

    where: Path
    """Its place in the recipe."""

    node: Node
    path: str
    """Absolute."""


def named_paths(root: Node) -> Iterator[NamedPath]:
    """Every path of a tree; texts of the command line are relative to where it is called."""
    for pattern, is_path in PATH_FIELDS:
        for where, node in _select(root, pattern):
            if isinstance(node.value, str) and node.value:
                folder = node.place.source.folder
                if is_path(node.value, folder):
                    yield NamedPath(where, node, os.path.normpath(folder / os.path.expanduser(node.value)))


def make_paths_absolute(root: Node) -> None:
    """Change the tree's path fields in place."""
    for named in list(named_paths(root)):
        named.node.value = named.path


def rebase(root: Node, folder: FilePath) -> None:
    """Write relative paths of other folders' texts as they would be in this one; absolute ones stay as they are."""
    for pattern, is_path in PATH_FIELDS:
        for _, node in _select(root, pattern):
            text, origin = node.value, node.place.source.folder
            is_relative = isinstance(text, str) and text and not os.path.isabs(os.path.expanduser(text))
            if isinstance(text, str) and is_relative and origin != folder and is_path(text, origin):
                moved = os.path.relpath(origin / text, folder)
                # A model's folder must not look like the name of one on the hub.
                node.value = moved if moved.startswith("..") or is_path is not _if_folder else f"./{moved}"


def is_plain_file(path: str | FilePath) -> bool:
    """A file on a disk: no folder, device, pipe or socket, nor what the kernel makes up (/proc/self/environ)."""
    try:
        real = os.path.realpath(path)
        return stat.S_ISREG(os.stat(real).st_mode) and not real.startswith(("/dev/", "/proc/", "/sys/"))
    except (OSError, ValueError):  # the latter for a path with \0
        return False


def _select(node: Node, pattern: Path, where: Path = ()) -> Iterator[tuple[Path, Node]]:
    if not pattern:
        yield where, node
    elif isinstance(node.value, dict):
        first, *rest = pattern
        for key, below in node.value.items():
            if first in ("*", key):
                yield from _select(below, tuple(rest), (*where, key))
