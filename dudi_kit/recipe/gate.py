"""Is this text for this dudi-kit at all? Asked of each file and of the command line before any other question.

A text of another language version, or one that requires another dudi-kit, may mean something else by every key: then
only that is said.
"""

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from dudi_kit import __version__
from dudi_kit.recipe.diagnostics import InvalidRecipeError, Problem, shown
from dudi_kit.recipe.yaml_nodes import Node

LANGUAGE_VERSION = 1
"""Of the recipes that this dudi-kit reads."""


def admit(root: Node) -> None:
    """Raise InvalidRecipeError, with one finding, for a text that another dudi-kit should read."""
    problem = _other_version(root.child("version")) or _other_dudi_kit(root.child("requires"))
    if problem is not None:
        raise InvalidRecipeError([root.locate(problem)])


def both(parent: Node, child: Node) -> Node:
    """The `requires` of a recipe and of its parent, as one that asks for both."""
    wanted = [_specifier(node) for node in (child, parent)]
    if None in wanted or wanted[0] == wanted[1]:
        return child  # what can't be read is the schema's to refuse
    return Node(f"{child.value},{parent.value}", child.place, child.key, child.flawed)


def _other_version(node: Node | None) -> Problem | None:
    version = node.plain() if node and not node.flawed else None
    if version is None or (type(version) is int and version == LANGUAGE_VERSION):
        return None
    message = f"this dudi-kit reads recipes of version {LANGUAGE_VERSION}, got {shown(version)}"
    is_newer = type(version) is int and version > LANGUAGE_VERSION
    return Problem(
        ("version",), "version", message, "a newer dudi-kit may read it" if is_newer else f"write {LANGUAGE_VERSION}"
    )


def _other_dudi_kit(node: Node | None) -> Problem | None:
    wanted = _specifier(node)
    # A pre-release of the version wanted counts: whoever runs one knows why.
    if node is None or wanted is None or wanted.contains(__version__, prereleases=True):
        return None
    message = f"this recipe needs dudi-kit {node.value}, and this is {__version__}"
    return Problem(("requires",), "requires", message, "install such a version")


def _specifier(node: Node | None) -> SpecifierSet | None:
    """None where there is none that can be read; the schema says so."""
    try:
        return SpecifierSet(node.value) if node and isinstance(node.value, str) else None
    except InvalidSpecifier:
        return None
