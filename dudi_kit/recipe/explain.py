"""What a key of the recipe is: its type, default, meaning, variants and an example, read off the schema itself."""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path as FilePath
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dudi_kit.recipe.anatomy import EXTENDS, Branch, Telling, branches, homes, keys, telling
from dudi_kit.recipe.diagnostics import listed, nearest
from dudi_kit.recipe.emit import inline, yaml_lines
from dudi_kit.recipe.origins import Origin, origin
from dudi_kit.recipe.publish import PARTIAL, json_schema
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.sentences import SYNONYMS
from dudi_kit.recipe.yaml_nodes import Source, lines_of, read_yaml

EXAMPLE = resources.files("dudi_kit.recipe") / "example" / "recipe.yaml"
"""A recipe that uses every section: examples are cut from it."""

LONGEST_EXAMPLE = 16
NEEDED = "needed"


class UnknownPathError(KeyError):
    """No such key; `hint` has what may be meant."""

    def __init__(self, path: str, hint: str) -> None:
        super().__init__(path)
        self.hint = hint


class Entry(NamedTuple):
    """A key in short."""

    key: str
    default: str
    """As one would write it, `needed`, or nothing where the key is a section with defaults of its own."""

    meaning: str


class Facts(NamedTuple):
    """What one field says, in one variant of the mapping that it is in."""

    where: str
    """What tells the variant, as in `init: scratch`; empty where there is but one, or all say the same."""

    type: str
    default: str
    meaning: str


class Variant(NamedTuple):
    """One of the mappings that may stand at a path."""

    mark: str
    """What tells it from others; empty where there is but one."""

    meaning: str
    entries: list[Entry]


class Explanation(NamedTuple):
    """All about one path."""

    path: str
    facts: list[Facts]
    origin: Origin
    variants: list[Variant]
    example: list[str]


class _Spot(NamedTuple):
    owner: Branch
    """The mapping that the key is in."""

    key: str
    field: FieldInfo


def explain(path: str) -> Explanation:
    """About a dotted path, in which `*` may stand for any name; '' is the recipe itself. Raises UnknownPathError."""
    parts = tuple(part for part in path.split(".") if part)
    if parts == (EXTENDS,):
        return _extends()
    here, spots = [Branch(None, Recipe)], list[_Spot]()
    for at, part in enumerate(parts):
        spots = [_Spot(branch, part, found[part]) for branch in here if part in (found := _keys(branch))]
        below = [branch for spot in spots for branch in branches(spot.field.annotation)]
        below += [item for branch in here for item in _items(branch)]
        if not below:
            raise _unknown(parts[: at + 1], here)
        here = below
    return Explanation(".".join(parts), _facts(spots), origin(parts), list(_variants(here)), _example(parts, spots))


def _extends() -> Explanation:
    """Of the one key that is gone before there is a `Recipe`."""
    node = json_schema()["definitions"][f"{PARTIAL}Recipe"]["properties"][EXTENDS]
    facts = Facts("", _sentence(node), "not set", node["description"])
    return Explanation(EXTENDS, [facts], Origin(), [], [f"{EXTENDS}: base.yaml"])


def _keys(branch: Branch) -> dict[str, FieldInfo]:
    return keys(branch.model) if branch.model else {}


def _items(branch: Branch) -> list[Branch]:
    """What a name of one's own leads to."""
    return branches(get_args(branch.type)[1]) if get_origin(branch.type) is dict else []


def _unknown(parts: tuple[str, ...], here: list[Branch]) -> UnknownPathError:
    *above, last = parts
    known = list(dict.fromkeys(key for branch in here for key in _keys(branch)))
    known += [] if above else [EXTENDS]
    meant = SYNONYMS.get(last, last)
    near = meant if meant in known else nearest(last, known)
    elsewhere = [f"{place}.{meant}".lstrip(".") for place in homes(meant)]
    inside = f"{'.'.join(above)} has" if above else "a recipe has"
    if near or elsewhere:
        hint = f"did you mean {('.'.join([*above, near]) if near else elsewhere[0])!r}?"
    else:
        hint = f"{inside} {', '.join(known) or 'no keys'}"
    return UnknownPathError(".".join(parts), hint)


# --- the field --------------------------------------------------------------------------------------------------------


def _facts(spots: Iterable[_Spot]) -> list[Facts]:
    """Those of each variant, or one where all say the same."""
    found = dict.fromkeys(
        Facts(str(telling(owner) or ""), _sentence(_property(owner, key)), _default(field), _meaning(field))
        for owner, key, field in spots
    )
    distinct = {facts._replace(where="") for facts in found}
    return list(distinct if len(distinct) == 1 else found)


def _meaning(field: FieldInfo) -> str:
    if field.description:
        return " ".join(field.description.split())
    models = [branch.model for branch in branches(field.annotation) if branch.model]
    return _doc(models[0]) if len(models) == 1 else ""


def _doc(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return NEEDED
    value = field.get_default()
    if not isinstance(value, BaseModel):
        return "not set" if value is None else inline(list(value) if isinstance(value, tuple) else value)
    variants = [branch for branch in branches(field.annotation) if branch.model]
    mark = next((telling(variant) for variant in variants if variant.model is type(value)), None)
    return f"{{{mark}}}" if mark and mark.value and len(variants) > 1 else ""


@cache
def _schema() -> dict[str, Any]:
    return dict(json_schema()["definitions"])


def _property(owner: Branch, key: str) -> dict[str, Any]:
    assert owner.model
    told: dict[str, Any] = _schema()[owner.model.__name__]["properties"][key]
    return told


def _sentence(node: dict[str, Any]) -> str:
    """A property of the JSON schema in words."""
    alternatives = node.get("oneOf") or node.get("anyOf")
    if alternatives and all("$ref" in each for each in alternatives):
        return f"a mapping, one of {len(alternatives)} kinds"
    if alternatives:
        said = dict.fromkeys(_sentence(each) for each in alternatives if each.get("type") != "null")
        return listed(said)
    if "$ref" in node or "allOf" in node:
        return "a mapping"
    if "const" in node:
        return inline(node["const"])
    if "enum" in node:
        return f"one of {', '.join(map(str, node['enum']))}"
    return SENTENCES[node["type"]](node)


def _number(words: str, node: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {node[key]:,}" for key, sign in signs.items() if key in node]
    return f"{words} {', '.join(bounds)}" if bounds else words


def _array(node: dict[str, Any]) -> str:
    items = node.get("items", {})
    if isinstance(items, list):
        return f"a list of {len(items)}: {_sentence(items[0])}"
    return f"a list, each {_sentence(items)}"


def _object(node: dict[str, Any]) -> str:
    below = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
    # `true` is a mapping of whatever another program understands.
    return (
        f"names of your own, each with {_sentence(below[0])}"
        if isinstance(below[0], dict) and below[0]
        else "a mapping"
    )


SENTENCES = {
    "string": lambda node: "text",
    "boolean": lambda node: "true or false",
    "integer": lambda node: _number("a whole number", node),
    "number": lambda node: _number("a number", node),
    "array": _array,
    "object": _object,
}


# --- what is below it -------------------------------------------------------------------------------------------------


def _variants(here: Iterable[Branch]) -> Iterator[Variant]:
    named = [branch for branch in here for branch in (branch, *_items(branch)) if branch.model]
    for branch in dict.fromkeys(named):
        assert branch.model
        mark = str(telling(branch) or "") if len(set(named)) > 1 else ""
        entries = [
            _entry(key, field)
            for key, field in keys(branch.model).items()
            if get_args(field.annotation) != (branch.tag,)
        ]
        yield Variant(mark, _doc(branch.model), entries)


def _entry(key: str, field: FieldInfo) -> Entry:
    return Entry(key, _default(field), _meaning(field).split(". ")[0].rstrip("."))


# --- examples ---------------------------------------------------------------------------------------------------------


@cache
def _example_values() -> dict[str, Any]:
    text = EXAMPLE.read_text(encoding="utf-8")
    values: dict[str, Any] = read_yaml(text, Source("", FilePath(), lines_of(text))).root.plain()
    return values


def _example(parts: tuple[str, ...], spots: list[_Spot]) -> list[str]:
    """Cut from the example recipe, or the default where that has no such key; each variant with what tells it."""
    if not parts:
        return []
    found = next(_cut(_example_values(), parts), None)
    if found is None:
        found = _nested(parts, _sample(spots))
    lines = [line.text for line in yaml_lines(_marked(found, [Branch(None, Recipe)], len(parts)))]
    return lines if len(lines) <= LONGEST_EXAMPLE else [*lines[: LONGEST_EXAMPLE - 1], "  …"]


def _cut(values: Any, parts: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The value at the path with nothing beside it; `*` and names that are not there take any."""
    if not isinstance(values, dict):
        return
    first, *rest = parts
    for key in [first] if first in values else values if first == "*" else ():
        if not rest:
            yield {key: values[key]}
        else:
            yield from ({key: below} for below in _cut(values[key], tuple(rest)))


def _marked(found: dict[str, Any], here: list[Branch], depth: int) -> dict[str, Any]:
    """The same, with the key that tells the variant beside each key that only a variant other than the default has."""
    ((key, value),) = found.items()
    owners = [branch for branch in here if key in _keys(branch)]
    if depth > 1:
        below = [each for owner in owners for each in branches(_keys(owner)[key].annotation)]
        value = _marked(value, below + [item for branch in here for item in _items(branch)], depth - 1)
    marks = [_needed_mark(owner) for owner in owners]
    apart = 0 < len(owners) < sum(branch.model is not None for branch in here)
    mark = marks[0] if apart and all(marks) else None
    return {key: value} if mark is None or mark.key == key else {mark.key: mark.value or "…", key: value}


def _needed_mark(variant: Branch) -> Telling | None:
    """What has to be written for a mapping to be this variant."""
    mark = telling(variant)
    return mark if mark and _keys(variant)[mark.key].is_required() else None


def _nested(parts: tuple[str, ...], value: Any) -> dict[str, Any]:
    *above, last = ("mine" if part == "*" else part for part in parts)
    found = {last: value}
    for part in reversed(above):
        found = {part: found}
    return found


def _sample(spots: list[_Spot]) -> Any:
    """A value that the field takes."""
    for spot in spots:
        default = None if spot.field.is_required() else spot.field.get_default()
        if default is not None and not isinstance(default, BaseModel):
            return default
    return next((_any(_property(spot.owner, spot.key)) for spot in spots), "…")


def _any(node: dict[str, Any]) -> Any:
    first = next(iter(node.get("oneOf") or node.get("anyOf") or [node]))
    choices = first.get("enum") or [first["const"]] if "const" in first or "enum" in first else None
    if choices:
        return choices[0]
    samples = {"string": "…", "boolean": True, "integer": max(1, first.get("minimum", 1)), "number": 1.0, "array": []}
    return samples.get(first.get("type"), {})
