"""One tree out of several texts: a recipe, the parents it extends, and the overrides of the command line.

Mappings merge key by key; lists and scalars replace; null removes the parent's key. Where the child chooses another
variant (a teacher that is a recipe instead of a model), the parent's mapping goes as a whole: its keys belong to the
other variant. The same holds in small for keys that belong together (`COMPANIONS`) or exclude each other (`RIVALS`).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path as FilePath
from typing import NamedTuple

from dudi_kit.recipe import gate
from dudi_kit.recipe.anatomy import EXTENDS
from dudi_kit.recipe.confine import REASON, is_address, is_inside
from dudi_kit.recipe.diagnostics import COMMAND_LINE, Finding, InvalidRecipeError, Path, Problem
from dudi_kit.recipe.paths import DATASETS, is_plain_file
from dudi_kit.recipe.yaml_nodes import LARGEST_FILE, Node, Place, Reading, Source, lines_of, read_yaml

MOST_PARENTS = 10
REQUIRES: Path = ("requires",)

Overrides = Sequence[tuple[str, str]]
"""(dotted path, YAML text), the last one of a path counts."""


class Switch(NamedTuple):
    """Where a recipe chooses between variants, and by what."""

    where: Path
    """`*` stands for any key."""

    keys: tuple[str, ...]
    """One key with several values, or several keys of which one is present."""

    default: str | None = None
    """The variant when the one key is absent."""


SWITCHES = (
    Switch(("teacher",), ("model", "recipe")),
    Switch(("teacher", "cache"), ("type",), default="none"),
    Switch(("student",), ("init",), default="pretrained"),
    Switch(("student", "tokenizer"), ("from", "vocabulary_size")),
    *(Switch(dataset, ("path", "hub", "builtin")) for dataset in DATASETS),
    *(Switch((*dataset, "format"), ("type",), default="columns") for dataset in DATASETS),
    *(Switch((*dataset, "english", "format"), ("type",), default="columns") for dataset in DATASETS),
    Switch(("evaluation", "tasks", "*"), ("data", "task")),
    Switch(("signals", "*", "divergence"), ("type",), default="reverse_kl"),
    Switch(("signals", "sequence", "reference"), ("type",), default="cold_start"),
    Switch(("rollouts", "engine"), ("type",), default="hf"),
)
"""Every choice between variants that the schema has; a test compares."""

COMPANIONS = {
    "model": ("revision", "gguf_file", "tokenizer", "tokenizer_revision"),
    "tokenizer": ("tokenizer_revision",),
    "hub": ("revision",),
    "from": ("revision",),
}
"""Keys that say more about another: a new model does not keep the old one's revision."""

RIVALS = (("steps", "epochs"),)
"""Keys of which only one may be given: the child's wins."""


@dataclass
class Composition:
    """The merged tree, what is wrong with its texts, and the files it came from, the recipe's own first."""

    root: Node
    source: Source
    """The recipe's own text."""

    findings: list[Finding] = field(default_factory=list)
    files: list[FilePath] = field(default_factory=list)
    parent: FilePath | None = None


def compose(path: FilePath, overrides: Overrides = (), root: FilePath | None = None) -> Composition:
    """Read the recipe and its parents, apply the overrides. Raises InvalidRecipeError where a text can't be read.

    root: a folder that no parent may leave (see `confine`).
    """
    whole = _read_chain(path, (), root)
    trees = list(_override_trees(overrides, whole))
    if trees:
        # All overrides act as one child, so that their order does not matter where one chooses a variant.
        asked = reduce(_lay_over, trees)
        gate.admit(asked)
        whole.root = merge(whole.root, asked)
    return whole


def merge(parent: Node, child: Node, path: Path = ()) -> Node:
    """The parent's tree with the child's values; places stay those of the text that a value came from."""
    if not (isinstance(parent.value, dict) and isinstance(child.value, dict)):
        return child
    leaving = _leaving(path, parent.value, child.value)
    merged = {key: node for key, node in parent.value.items() if key not in leaving}
    for key, node in child.value.items():
        if node.value is None and not node.flawed and key in parent.value:
            merged.pop(key, None)
        elif key in merged:
            below = (*path, key)
            merged[key] = gate.both(merged[key], node) if below == REQUIRES else merge(merged[key], node, below)
        else:
            merged[key] = node
    return Node(merged, child.place, child.key, child.flawed)


def read_file(path: FilePath) -> str:
    """The text of a recipe file; raises InvalidRecipeError with one finding."""
    if not is_plain_file(path):
        if os.path.isdir(path):
            raise _file_problem(path, "missing-file", "this is a folder", f"name its files, as in {path}/*.yaml")
        there = "\0" not in str(path) and os.path.exists(path)
        raise _file_problem(path, "missing-file", "no such file" if not there else "a device or a pipe, no file", "")
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _file_problem(path, "missing-file", f"can't be read: {error}", "") from None
    if len(content) > LARGEST_FILE:
        raise _file_problem(path, "too-large", f"larger than {LARGEST_FILE:,} bytes", "a recipe has a few kilobytes")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reason = f"byte {error.start:,} (line {line}) is not UTF-8"
        raise _file_problem(path, "encoding", reason, "save the file as UTF-8") from None


def _file_problem(path: FilePath, code: str, message: str, hint: str) -> InvalidRecipeError:
    return InvalidRecipeError([Finding(str(path), 0, 0, code, "", message, hint=hint)])


def _read_chain(path: FilePath, above: tuple[FilePath, ...], root: FilePath | None) -> Composition:
    """A file with all its parents merged under it; `above` are the files that extend it, the recipe's own first."""
    text = read_file(path)
    # The folder is made real, the file is not: a link to a recipe counts as lying where the link lies.
    source = Source(os.path.normpath(path), path.parent.resolve(), lines_of(text))
    reading = read_yaml(text, source)
    whole = Composition(_mapping(reading, source), source, reading.findings, [path.resolve()])
    gate.admit(whole.root)
    assert isinstance(whole.root.value, dict)
    extends = whole.root.value.pop(EXTENDS, None)
    if extends is None:
        return whole
    parent = _read_parent(path, extends, above, root)
    return Composition(
        merge(parent.root, whole.root),
        source,
        [*whole.findings, *parent.findings],
        [*whole.files, *parent.files],
        path.parent / str(extends.value),
    )


def _mapping(reading: Reading, source: Source) -> Node:
    root = reading.root
    if isinstance(root.value, dict):
        return root
    message = "the file is empty" if root.value is None else "a recipe is a mapping: lines of 'key: value'"
    place = Place(source, 1, 1, max(1, len(source.lines[0])))
    raise InvalidRecipeError([*reading.findings, place.finding(Problem((), "not-a-recipe", message))])


def _read_parent(path: FilePath, extends: Node, above: tuple[FilePath, ...], root: FilePath | None) -> Composition:
    def refuse(code: str, message: str, hint: str = "") -> InvalidRecipeError:
        return InvalidRecipeError([extends.place.finding(Problem((EXTENDS,), code, message, hint))])

    if not isinstance(extends.value, str) or not extends.value:
        raise refuse("wrong-type", "one path expected", "write 'extends: base.yaml', relative to this file")
    parent = path.parent / extends.value
    if is_address(extends.value):
        raise refuse("outside", "a parent is a file, no address", "put the parent beside this file")
    if root is not None and not is_inside(str(parent), root, written=extends.value):
        raise refuse("outside", f"{extends.value!r} lies outside the recipe's folder", REASON)
    chain = (*above, path)
    steps = " → ".join(os.path.normpath(file) for file in (*chain, parent))
    if os.path.realpath(parent) in {os.path.realpath(file) for file in chain}:
        raise refuse("extends-cycle", "a recipe can't extend itself", f"the chain is {steps}")
    if len(chain) > MOST_PARENTS:
        raise refuse("too-deep", f"more than {MOST_PARENTS} parents", f"the chain is {steps}")
    if not is_plain_file(parent):
        raise refuse("missing-parent", f"no such file: {extends.value!r}", f"the chain is {steps}")
    return _read_chain(parent, chain, root)


def _leaving(path: Path, parent: dict[str, Node], child: dict[str, Node]) -> set[str]:
    """Keys of the parent that the child's choice makes meaningless."""
    if any(_chooses_anew(switch, parent, child) for switch in SWITCHES if _matches(path, switch.where)):
        return set(parent)
    given = {key for key, node in child.items() if node.value is not None}
    leaving = {rival for pair in RIVALS if given & set(pair) for rival in pair}
    for key, companions in COMPANIONS.items():
        if key in given and key in parent and child[key].plain() != parent[key].plain():
            leaving |= set(companions)
    return leaving - set(child)


def _chooses_anew(switch: Switch, parent: dict[str, Node], child: dict[str, Node]) -> bool:
    chosen = {key for key in switch.keys if key in child and child[key].value is not None}
    if len(switch.keys) > 1:
        return bool(chosen) and any(key in parent for key in switch.keys if key not in chosen)
    (key,) = switch.keys
    before = parent[key].plain() if key in parent else switch.default
    return bool(chosen) and child[key].plain() != before


def _matches(path: Path, pattern: Path) -> bool:
    return len(path) == len(pattern) and all(part in ("*", key) for key, part in zip(path, pattern, strict=True))


def _lay_over(below: Node, above: Node) -> Node:
    """One override over another: as `merge`, but null stays, since it is still to remove the recipe's key."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    layered = dict(below.value)
    for key, node in above.value.items():
        layered[key] = _lay_over(layered[key], node) if key in layered else node
    return Node(layered, above.place, above.key)


def _override_trees(overrides: Overrides, whole: Composition) -> Iterator[Node]:
    for dotted, text in overrides:
        prefix = f"--{dotted}="
        source = Source(COMMAND_LINE, FilePath.cwd(), lines_of(prefix + text), numbered=False, shift=len(prefix))
        key = Place(source, 1, 3, max(1, len(dotted)))
        if "" in dotted.split("."):
            hint = "write it as training.seed"
            whole.findings.append(key.finding(Problem((), "bad-override", f"{dotted!r} is no dotted path", hint)))
            continue
        reading = read_yaml(text, source)
        whole.findings += reading.findings
        node = reading.root
        for part in reversed(_parts(dotted, whole.root)):
            node.key = key
            node = Node({part: node}, key)
        yield node


def _parts(dotted: str, root: Node) -> list[str]:
    """The keys of a dotted path. Names in a recipe may have dots themselves: where one is written so, it is meant."""
    rest, parts = dotted.split("."), []
    node: Node | None = root
    while rest:
        known = node.value if node and isinstance(node.value, dict) else {}
        length = next((n for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in known), 1)
        part, rest = ".".join(rest[:length]), rest[length:]
        parts.append(part)
        node = known.get(part)
    return parts
