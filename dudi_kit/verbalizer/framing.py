"""The text of the teacher's last turn: demonstration and prompt, joined by a sandboxed Jinja template.

A template for each language ships with dudi-kit, written in that language; a recipe may bring its own.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import meta

from dudi_kit.data.example import Exchange
from dudi_kit.data.rendering import ENVIRONMENT, Refused, compile_template
from dudi_kit.errors import RecipeError
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.schema.verbalizer import Demonstration

NAMES = frozenset({"demonstrations", "prompt", "language", "language_name"})
"""What a template may use."""

PROBE = "⟦prompt⟧"
"""Stands for a prompt while a template is tried out."""

Compiled = tuple[str, Callable[[Mapping[str, Any]], str]]
"""A template's file name, and the function that renders it."""


class Frames:
    """The template of each language: the recipe's, or else the one that ships.

    Each is tried out at once, with one part and with two: RecipeError for one that can't be read or rendered, uses a
    name that there is not, or does not show the prompt.
    """

    def __init__(self, settings: Demonstration) -> None:
        chosen = (
            settings.template if isinstance(settings.template, dict) else dict.fromkeys(LANGUAGES, settings.template)
        )
        self._templates = {code: _template(code, chosen.get(code)) for code in LANGUAGES}
        for code, template in self._templates.items():
            _try_out(template, code)

    def render(self, language: str, prompt: str, shown: Sequence[Exchange]) -> str:
        """The turn's text for a row of `language`."""
        return _rendered(self._templates[language], language, prompt, shown)


def shipped_file(language: str) -> Any:
    """The template of a language that ships."""
    return resources.files("dudi_kit.verbalizer") / "templates" / f"{language}.jinja"


def _template(language: str, path: str | None) -> Compiled:
    name = path or f"{language}.jinja"
    text = _read(path) if path is not None else shipped_file(language).read_text(encoding="utf-8")
    try:
        # A file ends with a line break, which would become part of every prompt.
        render = compile_template(text.removesuffix("\n"))
        if unknown := sorted(meta.find_undeclared_variables(ENVIRONMENT.parse(text)) - NAMES):
            raise Refused(f"{unknown[0]!r} is undefined")
    except Refused as error:
        raise _faulty(name, error) from error
    return name, render


def _try_out(template: Compiled, language: str) -> None:
    part = Exchange(language, "prompt", "response")
    for shown in ([part], [part, part._replace(language="en")]):
        if PROBE not in _rendered(template, language, PROBE, shown):
            raise _faulty(template[0], Refused("it does not show {{ prompt }}, so the teacher would not read the task"))


def _rendered(template: Compiled, language: str, prompt: str, shown: Sequence[Exchange]) -> str:
    name, render = template
    values = {
        "demonstrations": [{**part._asdict(), "language_name": LANGUAGES[part.language].name} for part in shown],
        "prompt": prompt,
        "language": language,
        "language_name": LANGUAGES[language].name,
    }
    try:
        return render(values)
    except Refused as error:
        raise _faulty(name, error) from error


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RecipeError(f"verbalizer.demonstration.template: can't read {path}: {reason}.") from error


def _faulty(name: str, error: Refused) -> RecipeError:
    return RecipeError(
        f"verbalizer.demonstration.template: {name}: {error}. A template may use demonstrations (language, "
        "language_name, prompt and response of each), prompt, language and language_name."
    )
