"""The recipe language for others: a JSON schema that editors complete from, and a recipe as JSON with all defaults.

`extends` is no key of `Recipe`: it is gone once a file is loaded. In the schema it is one, and a file that has it may
leave out what its parent says, and write null for what it takes away; hence two versions of every definition.
"""

import json
from typing import Any

from dudi_kit.recipe.anatomy import EXTENDS
from dudi_kit.recipe.schema import Recipe

PARTIAL = "Partial"
EXTENDS_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "description": "A parent recipe, relative to this file. Mappings merge, lists and scalars replace, null removes.",
}


def resolved_json(recipe: Recipe) -> str:
    """The recipe with all defaults: keys in the order of the schema, names in the order in which they were written."""
    return json.dumps(recipe.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"


def recipe_from_resolved(text: str) -> Recipe:
    """The recipe of `resolved_json`; raises pydantic.ValidationError for a text that is none."""
    return Recipe.model_validate(json.loads(text))


def json_schema() -> dict[str, Any]:
    """Draft-7 schema of a recipe file."""
    schema = _draft_7(Recipe.model_json_schema(by_alias=True, ref_template="#/definitions/{model}"))
    definitions = schema.pop("definitions")
    whole = {**definitions, "Recipe": schema}
    partial = {PARTIAL + name: _partial(definition) for name, definition in whole.items()}
    partial[f"{PARTIAL}Recipe"]["properties"] = {EXTENDS: EXTENDS_SCHEMA, **partial[f"{PARTIAL}Recipe"]["properties"]}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "dudi-kit recipe, version 1",
        "type": "object",
        "if": {"required": [EXTENDS]},
        "then": {"$ref": f"#/definitions/{PARTIAL}Recipe"},
        "else": {"$ref": "#/definitions/Recipe"},
        "definitions": {**whole, **partial},
    }


def schema_text() -> str:
    """The schema as it is committed."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _draft_7(node: Any) -> Any:
    """Say in draft 7, which editors read, what Pydantic says in draft 2020-12."""
    if isinstance(node, list):
        return [_draft_7(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _draft_7(value) for key, value in node.items()}
    if "$defs" in node:
        node["definitions"] = node.pop("$defs")
    if "prefixItems" in node:
        node["items"] = node.pop("prefixItems")
        node["additionalItems"] = False
    if "$ref" in node and len(node) > 1:  # draft 7 ignores all that stands beside $ref
        node = {"allOf": [{"$ref": node.pop("$ref")}], **node}
    if "patternProperties" in node:
        node["additionalProperties"] = False
    if isinstance(node.get("title"), str):
        del node["title"]  # Pydantic's repeat the key
    if isinstance(node.get("description"), str):
        node["description"] = " ".join(node["description"].split())
    return node


def _partial(node: Any) -> Any:
    """The same with nothing required, and null allowed for every key, at every depth."""
    if isinstance(node, list):
        return [_partial(item) for item in node]
    if not isinstance(node, dict):
        return node
    changed = {
        key: _partial_keyword(key, value) for key, value in node.items() if key not in ("required", "minProperties")
    }
    if "oneOf" in changed:  # with nothing required, a mapping can fit several variants
        changed["anyOf"] = changed.pop("oneOf")
    return changed


def _partial_keyword(key: str, value: Any) -> Any:
    if key == "$ref":
        return value.replace("#/definitions/", f"#/definitions/{PARTIAL}")
    if key in ("properties", "patternProperties"):
        return {name: _or_null(_partial(below)) for name, below in value.items()}
    if key == "additionalProperties" and isinstance(value, dict):
        return _or_null(_partial(value))
    if key in ("default", "const", "enum"):
        return value
    return _partial(value)


def _or_null(node: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        key: node.pop(key) for key in ("description", "default") if key in node
    }  # where editors look for them
    return {**told, "anyOf": [node, {"type": "null"}]}
