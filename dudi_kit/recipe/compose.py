"""One tree out of several texts: a recipe, the parents it extends, and the overrides of the command line.

Mappings merge key by key; lists and scalars replace; null removes the parent's key. Where the child chooses another
variant (a teacher that is a recipe instead of a model), the parent's mapping goes as a whole: its keys belong to the
other variant. The same holds in small for keys that belong together (`COMPANIONS`) or exclude each other (`RIVALS`).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import NamedTuple

from dudi_kit.recipe.diagnostics import Finding, InvalidRecipeError, Path, Problem
from dudi_kit.recipe.yaml_nodes import LARGEST_FILE, Node, Place, Reading, Source, lines_of, read_yaml

MOST_PARENTS = 10

Overrides = Sequence[tuple[str, str]]
"""(dotted path, YAML text), the last one of a path counts."""


class Telling(NamedTuple):
    """How the variants of a union are told apart, at the paths that match."""

    where: Path
    """`*` stands for any key; only the end of the path is compared."""

    keys: tuple[str, ...]
    """One key with several values, or several keys of which one is present."""

    default: str | None = None
    """The variant when the one key is absent."""


TELLING = (
    Telling(("teacher",), ("model", "recipe")),
    Telling(("student",), ("init",), default="pretrained"),
    Telling(("student", "tokenizer"), ("from", "vocabulary_size")),
    Telling(("data", "train", "*"), ("path", "hub", "builtin")),
    Telling(("data", "held_out", "*"), ("path", "hub", "builtin")),
    Telling(("tasks", "*", "data"), ("path", "hub", "builtin")),
    Telling(("format",), ("type",), default="columns"),
    Telling(("signals", "*", "divergence"), ("type",), default="reverse_kl"),
    Telling(("signals", "sequence", "reference"), ("type",), default="cold_start"),
)

COMPANIONS = {"model": ("revision", "gguf_file", "tokenizer"), "hub": ("revision",), "from": ("revision",)}
"""Keys that say more about another: a new model does not keep the old one's revision."""

RIVALS = (("steps", "epochs"),)
"""Keys of which only one may be given: the child's wins."""


@dataclass
class Composition:
    """The merged tree, what is wrong with its texts, and the files it came from, the recipe's own first."""

    root: Node
    findings: list[Finding] = field(default_factory=list)
    files: list[FilePath] = field(default_factory=list)


def compose(path: FilePath, overrides: Overrides = ()) -> Composition:
    """Read the recipe and its parents, apply the overrides. Raises InvalidRecipeError where a text can't be read."""
    whole = _read_chain(path, ())
    tree = _override_tree(overrides, whole)
    if tree is not None:
        whole.root = merge(whole.root, tree)
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
            merged[key] = merge(merged[key], node, (*path, key))
        else:
            merged[key] = node
    return Node(merged, child.place, child.key, child.flawed)


def read_file(path: FilePath) -> str:
    """The text of a recipe file; raises InvalidRecipeError with one finding."""
    try:
        if not path.is_file():
            reason = "this is a folder" if path.is_dir() else "no such file"
            raise _file_problem(path, "missing-file", reason, "")
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
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


def _read_chain(path: FilePath, above: tuple[FilePath, ...]) -> Composition:
    """A file with all its parents merged under it; `above` are the files that extend it, the recipe's own first."""
    text = read_file(path)
    # The folder is made real, the file is not: a link to a recipe counts as lying where the link lies.
    source = Source(os.path.normpath(path), path.parent.resolve(), lines_of(text))
    reading = read_yaml(text, source)
    whole = Composition(_mapping(reading, source), reading.findings, [path.resolve()])
    assert isinstance(whole.root.value, dict)
    extends = whole.root.value.pop("extends", None)
    if extends is None:
        return whole
    parent = _read_parent(path, extends, above)
    return Composition(
        merge(parent.root, whole.root), [*whole.findings, *parent.findings], [*whole.files, *parent.files]
    )


def _mapping(reading: Reading, source: Source) -> Node:
    root = reading.root
    if isinstance(root.value, dict):
        return root
    message = "the file is empty" if root.value is None else "a recipe is a mapping: lines of 'key: value'"
    place = Place(source, 1, 1, max(1, len(source.lines[0])))
    raise InvalidRecipeError([*reading.findings, place.finding(Problem((), "not-a-recipe", message))])


def _read_parent(path: FilePath, extends: Node, above: tuple[FilePath, ...]) -> Composition:
    def refuse(code: str, message: str, hint: str = "") -> InvalidRecipeError:
        return InvalidRecipeError([extends.place.finding(Problem(("extends",), code, message, hint))])

    if not isinstance(extends.value, str) or not extends.value:
        raise refuse("wrong-type", "one path expected", "write 'extends: base.yaml', relative to this file")
    parent = path.parent / extends.value
    chain = (*above, path)
    steps = " → ".join(os.path.normpath(file) for file in (*chain, parent))
    if os.path.realpath(parent) in {os.path.realpath(file) for file in chain}:
        raise refuse("extends-cycle", "a recipe can't extend itself", f"the chain is {steps}")
    if len(chain) > MOST_PARENTS:
        raise refuse("too-deep", f"more than {MOST_PARENTS} parents", f"the chain is {steps}")
    if not os.path.isfile(parent):
        raise refuse("missing-parent", f"no such file: {extends.value!r}", f"the chain is {steps}")
    return _read_chain(parent, chain)


def _leaving(path: Path, parent: dict[str, Node], child: dict[str, Node]) -> set[str]:
    """Keys of the parent that the child's choice makes meaningless."""
    if any(_switches(telling, parent, child) for telling in TELLING if _matches(path, telling.where)):
        return set(parent)
    given = {key for key, node in child.items() if node.value is not None}
    leaving = {rival for pair in RIVALS if given & set(pair) for rival in pair}
    for key, companions in COMPANIONS.items():
        if key in given and key in parent and child[key].plain() != parent[key].plain():
            leaving |= set(companions)
    return leaving - set(child)


def _switches(telling: Telling, parent: dict[str, Node], child: dict[str, Node]) -> bool:
    if len(telling.keys) == 1:
        (key,) = telling.keys
        before = parent[key].plain() if key in parent else telling.default
        return key in child and child[key].value is not None and child[key].plain() != before
    chosen = {key for key in telling.keys if key in child and child[key].value is not None}
    return bool(chosen) and any(key in parent and key not in chosen for key in telling.keys)


def _matches(path: Path, pattern: Path) -> bool:
    """Whether the path ends as the pattern says; a pattern of the root's own keys matches only there."""
    if len(path) < len(pattern) or (pattern[0] in ROOTED and len(path) != len(pattern)):
        return False
    return all(part in ("*", key) for key, part in zip(path[-len(pattern) :], pattern, strict=True))


ROOTED = frozenset({"teacher", "student", "data", "signals"})


def _override_tree(overrides: Overrides, whole: Composition) -> Node | None:
    """All overrides as one tree, to be merged as if it were a child's file."""
    trees = list(_override_nodes(overrides, whole))
    if not trees:
        return None
    return trees[0] if len(trees) == 1 else _layered(trees)


def _layered(trees: list[Node]) -> Node:
    first, *rest = trees
    for tree in rest:
        first = _lay_over(first, tree)
    return first


def _lay_over(below: Node, above: Node) -> Node:
    """As `merge`, but null stays: it is still to remove the recipe's key."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    layered = dict(below.value)
    for key, node in above.value.items():
        layered[key] = _lay_over(layered[key], node) if key in layered else node
    return Node(layered, above.place, above.key)


def _override_nodes(overrides: Overrides, whole: Composition) -> Iterator[Node]:
    for dotted, text in overrides:
        prefix = f"--{dotted}="
        source = Source("command line", FilePath.cwd(), lines_of(prefix + text), numbered=False, shift=len(prefix))
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
    rest, parts, node = dotted.split("."), [], root
    while rest:
        known = node.value if isinstance(node, Node) and isinstance(node.value, dict) else {}
        length = next((n for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in known), 1)
        part = ".".join(rest[:length])
        parts.append(part)
        node = known.get(part, root if not known else node)
        rest = rest[length:]
    return parts
