"""Jinja templates that come with a recipe: untrusted, so they may pick and join texts, and nothing else.

jinja2's sandbox keeps a template from reaching Python's internals, but not from filling the memory (`'a' * 10**9`,
`{% set x = x ~ x %}`). A template that only shows, chooses and loops needs neither: the rest of the language is refused
when the template is compiled, by name, and what is left is cut off at `MAX_CHARACTERS`.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_CHARACTERS = 1_000_000
"""Longest text that a template, or one of its filters, may make."""

MAX_LOOPS = 2
"""Loops inside loops: enough for a list of lists, too few to run for ever."""

ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.CondExpr, nodes.Name, nodes.Const),
    *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And),
    *(
        nodes.Or,
        nodes.Not,
        nodes.Neg,
        nodes.Add,
        nodes.Sub,
        nodes.Concat,
        nodes.List,
        nodes.Tuple,
        nodes.Dict,
        nodes.Pair,
    ),
)


class Refused(ValueError):
    """A template is not allowed, or could not be rendered with these values; the text says why."""


def compile_template(source: str) -> Callable[[Mapping[str, Any]], str]:
    """A function from values to text.

    Refused is raised here for a syntax error or a part of Jinja that is not allowed, and by the function for a name
    that the values lack, something other than a text or a number in `{{ }}`, and an output over MAX_CHARACTERS.
    """
    try:
        _check(ENVIRONMENT.parse(source))
        template = ENVIRONMENT.from_string(source)
    except TemplateSyntaxError as error:
        raise Refused(f"line {error.lineno}: {error.message}") from error
    return lambda values: _render(template, values)


def _check(node: nodes.Node, loops: int = 0) -> None:
    name = node.name if isinstance(node, nodes.Filter) else type(node).__name__.lower()
    if not isinstance(node, ALLOWED) or (isinstance(node, nodes.Filter) and name not in FILTERS):
        allowed = "{{ column }}, if, for, comparisons, +, ~ and the filters " + " ".join(sorted(FILTERS))
        raise Refused(f"line {node.lineno}: {name!r} is not allowed; templates of a recipe may use {allowed}")
    if isinstance(node, nodes.For):
        loops += 1
        if loops > MAX_LOOPS or node.recursive:
            raise Refused(f"line {node.lineno}: a loop is more than {MAX_LOOPS} deep, or recursive")
    for child in node.iter_child_nodes():
        _check(child, loops)


def _render(template: Template, values: Mapping[str, Any]) -> str:
    parts, length = [], 0
    try:
        for part in template.generate(values):
            length += len(part)
            _limit(length)
            parts.append(part)
    except (TemplateError, SecurityError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise error if isinstance(error, Refused) else Refused(str(error)) from error
    return "".join(parts)


def _shown(value: Any) -> Any:
    """What `{{ value }}` may show: anything else is printed by Python as no reader would want it (`None`, `['a']`)."""
    if isinstance(value, StrictUndefined | str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused(f"{{{{ }}}} shows texts and numbers, found {describe(value)}")
    return value


def describe(value: Any) -> str:
    """A value of a row in a few words, for messages."""
    match value:
        case None:
            return "null"
        case bool() | int() | float():
            return f"the {'boolean' if isinstance(value, bool) else 'number'} {json.dumps(value)}"
        case str():
            return f"the text {value if len(value) <= 40 else value[:40] + '…'!r}"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return f"a mapping with {', '.join(map(str, value)) or 'nothing'}"
    return f"a {type(value).__name__}"


def _limit(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise Refused(f"the text is longer than {MAX_CHARACTERS:,} characters")


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, str):
            _limit(len(result))
        return result

    return bounded


def _join(value: Iterable[Any], separator: str = "") -> str:
    parts = [str(_shown(part)) for part in value]
    _limit(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


def _replace(text: str, old: str, new: str) -> str:
    _limit(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


def _tojson(value: Any) -> str:
    # Not jinja2's own, which escapes for HTML: the text is for a model.
    return json.dumps(value, ensure_ascii=False)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=_shown, keep_trailing_newline=True)
    environment.globals.clear()
    environment.filters = FILTERS
    return environment


def _filters() -> dict[str, Callable[..., Any]]:
    simple = ["capitalize", "lower", "title", "trim", "upper", "string"]
    names = [*simple, "default", "d", "first", "last", "length", "list", "int", "float"]
    standard = ImmutableSandboxedEnvironment().filters
    own: dict[str, Callable[..., Any]] = {"join": _join, "replace": _replace, "tojson": _tojson}
    return {name: _bounded(function) for name, function in own.items()} | {name: standard[name] for name in names}


FILTERS = _filters()
ENVIRONMENT = _environment()
