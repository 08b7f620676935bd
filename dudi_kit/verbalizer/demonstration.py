"""The first half of the verbalizer: a cross-lingual demonstration z in front of the teacher's prompt.

z shows a task with its reference answer, in the row's language and in English, so that a teacher strong in
English brings that strength to the target language (DuDi, arXiv 2606.04694). The student never reads z: what the
teacher knows because of z reaches it only through the teacher's probabilities. The teacher keeps its own chat template;
z goes into the last user turn, whose text a sandboxed Jinja template writes.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from dudi_kit.data.example import Example, Exchange, Turn
from dudi_kit.data.formats import plain_prompt
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.rendering import Refused, compile_template
from dudi_kit.errors import RecipeError
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.schema.verbalizer import Demonstration


@dataclass
class Demonstrator:
    """Makes the teacher's turns of an example: the same turns, with the demonstration in the last one."""

    settings: Demonstration
    pool: Sequence[Example]
    """Training rows that `source: pool` draws from."""

    ledger: Ledger

    def __post_init__(self) -> None:
        self._templates = _compiled_templates(self.settings)
        self._by_language: dict[str, list[Example]] = {}
        for example in self.pool:
            self._by_language.setdefault(example.language, []).append(example)

    def turns(self, example: Example) -> tuple[Turn, ...]:
        """The example's turns, the last one rewritten to show the demonstration before the prompt.

        An example for which there is nothing to show keeps its turns; that is counted.
        """
        shown = self.exchanges(example)
        for code in self._missing(example, shown):
            self.ledger.count(
                f"demonstration without its {code} part: none for this row", example.language, str(example.origin)
            )
        if not shown:
            if self.settings.source != "none":
                self.ledger.count(
                    "taught without a demonstration: none for this row", example.language, str(example.origin)
                )
            return example.prompt
        *earlier, last = example.prompt
        return (*earlier, Turn("user", self._render(example, last.content, shown)))

    def _missing(self, example: Example, shown: list[Exchange]) -> list[str]:
        """Languages that the demonstration of this row should have and has not, where it has others."""
        if not shown:
            return []
        wanted = {example.language if code == "same" else code for code in self.settings.languages}
        return sorted(wanted - {exchange.language for exchange in shown})

    def exchanges(self, example: Example) -> list[Exchange]:
        """What is shown for one example, in the order of `languages`; each language once."""
        wanted = {example.language if code == "same" else code: None for code in self.settings.languages}
        if self.settings.source == "parallel":
            candidates = [_parallel(example, language) for language in wanted]
        elif self.settings.source == "pool":
            candidates = self._from_pool(example, list(wanted))
        else:
            candidates = []
        return [exchange for exchange in candidates if exchange is not None]

    def _from_pool(self, example: Example, languages: list[str]) -> list[Exchange | None]:
        """One exemplar in the row's language, with its English version if it has one; else a row of that language."""
        exemplar = self._draw(example, example.language)
        own = [_parallel(exemplar, language) if exemplar else None for language in languages]
        return [shown or _own(self._draw(example, language)) for shown, language in zip(own, languages, strict=True)]

    def _draw(self, example: Example, language: str) -> Example | None:
        """A row of `language` that is not the example, chosen by a hash of seed and row: the same in every run."""
        rows = self._by_language.get(language, [])
        if not rows:
            return None
        # Not the file's path: a folder that is moved keeps its lock, and so has to keep its exemplars.
        row = f"{example.language}:{example.origin.dataset}:{example.origin.row}"
        key = f"{self.settings.seed}:{language}:{row}".encode()
        start = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") % len(rows)
        others = (rows[(start + i) % len(rows)] for i in range(len(rows)))
        return next((row for row in others if not _same_item(row, example)), None)

    def _render(self, example: Example, prompt: str, shown: list[Exchange]) -> str:
        name, render = self._templates.get(example.language) or self._templates["*"]
        values = {
            "demonstrations": [{**e._asdict(), "language_name": LANGUAGES[e.language].name} for e in shown],
            "prompt": prompt,
            "language": example.language,
            "language_name": LANGUAGES[example.language].name,
        }
        try:
            return render(values)
        except Refused as error:
            raise _faulty(name, error) from error


Compiled = tuple[str, Callable[[Mapping[str, Any]], str]]
"""A template's file name, and the function that renders it."""


def _compiled_templates(settings: Demonstration) -> dict[str, Compiled]:
    """The template of each language that has one of its own; `*` stands for all others."""
    default = resources.files("dudi_kit.verbalizer").joinpath("templates/default.jinja")
    texts = {"*": ("default.jinja", default.read_text(encoding="utf-8"))}
    chosen = settings.template if isinstance(settings.template, dict) else {"*": settings.template}
    for language, path in chosen.items():
        if path is not None:
            texts[language] = (path, _read(path))
    return {language: _compiled(name, text) for language, (name, text) in texts.items()}


def _compiled(name: str, text: str) -> Compiled:
    try:
        return name, compile_template(text)
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


def _own(example: Example | None) -> Exchange | None:
    return Exchange(example.language, example.prompt[-1].content, example.response) if example else None


def _parallel(example: Example, language: str) -> Exchange | None:
    """The example itself, or its English version."""
    if language == example.language:
        return _own(example)
    return example.english if language == "en" else None


def _same_item(a: Example, b: Example) -> bool:
    """The same row, its translation, or another row with the same prompt."""
    if a.origin[1:] == b.origin[1:] or a.prompt == b.prompt:
        return True
    return _english_prompt(a) is not None and _english_prompt(a) == _english_prompt(b)


def _english_prompt(example: Example) -> str | None:
    """What tells that two rows are translations of each other; an English row is its own English version."""
    if example.language == "en":
        return plain_prompt(example.prompt)
    return example.english.prompt if example.english else None
