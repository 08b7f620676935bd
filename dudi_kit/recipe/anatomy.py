"""How the schema is built, read off its own annotations: which keys a mapping may have, which variants a union.

Pydantic names a mistake by a location in which the names of union variants stand between the keys. `trace` walks such a
location through the annotations, and gives the path that the user wrote and what may stand there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from dudi_kit.recipe.diagnostics import Path
from dudi_kit.recipe.schema import Recipe


class Branch(NamedTuple):
    """One alternative of an annotation."""

    tag: str | None
    type: Any

    @property
    def model(self) -> type[BaseModel] | None:
        """The type, if it is a mapping with fixed keys."""
        return self.type if isinstance(self.type, type) and issubclass(self.type, BaseModel) else None


class Telling(NamedTuple):
    """What marks a variant of a union: a key, with a value where the key alone does not tell."""

    key: str
    value: str | None

    def __str__(self) -> str:
        return f"{self.key}: {self.value or '…'}"


EXTENDS = "extends"
"""A key of recipe files, but of no `Recipe`: it is gone once a file is loaded."""


@dataclass
class Trace:
    """Where a location leads."""

    path: Path
    """As the user wrote it."""

    here: list[Branch]
    """What may stand there; empty for an unknown key."""

    owner: type[BaseModel] | None
    """The model whose key the path's last part is."""

    variants: list[Branch]
    """All variants, where the owner is one of a union."""

    at_key: bool
    """The mistake is in the key itself."""


def trace(location: Sequence[str | int], root: type[BaseModel] = Recipe) -> Trace:
    """Walk a location of Pydantic through the annotations of `root`."""
    found = Trace((), [Branch(None, root)], None, [], at_key=False)
    union: list[Branch] = []
    for part in location:
        if part == "[key]" and found.owner is None:
            found.at_key = True
            break
        variant = next((branch for branch in found.here if branch.tag is not None and branch.tag == part), None)
        if variant is not None:
            union, found.here = found.here, [Branch(None, variant.type)]
            continue
        found.owner, found.variants, union = next((b.model for b in found.here if b.model), None), union, []
        found.path = (*found.path, part)
        found.here = [below for branch in found.here for below in _below(branch, part)]
    return found


def branches(annotation: Any) -> list[Branch]:
    """The alternatives of an annotation, with their tags; None is no alternative."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        tag = next((mark.tag for mark in marks if isinstance(mark, Tag)), None)
        return [Branch(tag, inner)] if tag is not None else branches(inner)
    if origin in (Union, UnionType):
        return [branch for part in get_args(annotation) if part is not NoneType for branch in branches(part)]
    return [Branch(None, annotation)]


def keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by the key that a recipe uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def choices(here: list[Branch]) -> list[Any]:
    """The values of a Literal."""
    return [value for branch in here if get_origin(branch.type) is Literal for value in get_args(branch.type)]


def telling(variant: Branch) -> Telling | None:
    """What marks the variant: the key whose only value is its tag, or its one key that must be there."""
    fields = keys(variant.model) if variant.model else {}
    for key, field in fields.items():
        if get_args(field.annotation) == (variant.tag,):
            return Telling(key, variant.tag)
    return next((Telling(key, None) for key, field in fields.items() if field.is_required()), None)


@cache
def homes(key: str, root: type[BaseModel] = Recipe) -> tuple[str, ...]:
    """Sections below `root` that have this key, the outer ones first; the root itself is ''."""
    found = dict.fromkeys(path for path, name in _all_keys(root, "", depth=4) if name == key)
    return tuple(sorted(found, key=lambda path: path.count(".")))


def _all_keys(model: type[BaseModel], path: str, depth: int) -> Iterator[tuple[str, str]]:
    for key, field in keys(model).items():
        yield path, key
        for branch in branches(field.annotation) if depth else ():
            if branch.model:
                yield from _all_keys(branch.model, f"{path}.{key}".lstrip("."), depth - 1)


def _below(branch: Branch, part: str | int) -> list[Branch]:
    if branch.model:
        field = keys(branch.model).get(str(part))
        return branches(field.annotation) if field else []
    arguments = get_args(branch.type)
    match get_origin(branch.type):
        case origin if origin is dict:
            return branches(arguments[1])
        case origin if origin is list:
            return branches(arguments[0])
        case origin if origin is tuple and isinstance(part, int):
            return branches(arguments[part]) if part < len(arguments) else []
        case _:
            return []
