"""The first half of the verbalizer: a cross-lingual demonstration z in front of the teacher's prompt.

z shows a task with its reference answer, in the row's language and in English, so that a teacher that is strong in
English brings that strength to the target language (DuDi, arXiv 2606.04694). The student never reads z: what the teacher
knows because of z reaches it only through the teacher's probabilities. The teacher keeps its own chat template; z goes
into the last user turn, whose text a sandboxed Jinja template writes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dudi_kit.data.example import Example, Exchange, Turn
from dudi_kit.data.ledger import Ledger
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
        self._environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        self._templates = _template_texts(self.settings)
        self._by_language: dict[str, list[Example]] = {}
        for example in self.pool:
            self._by_language.setdefault(example.language, []).append(example)

    def turns(self, example: Example) -> tuple[Turn, ...]:
        """The example's turns, the last one rewritten to show the demonstration before the prompt.

        An example for which there is nothing to show keeps its turns; that is counted.
        """
        shown = self.exchanges(example)
        if not shown:
            if self.settings.source != "none":
                self.ledger.count("taught without a demonstration: none for this row", example.language, str(example.origin))
            return example.prompt
        *earlier, last = example.prompt
        return (*earlier, Turn("user", self._render(example, last.content, shown)))

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
        """One exemplar in the row's language, with its own English version where it has one; else a row of that language."""
        exemplar = self._draw(example, example.language)
        return [
            _parallel(exemplar, language) or _own(self._draw(example, language)) if exemplar else _own(self._draw(example, language))
            for language in languages
        ]

    def _draw(self, example: Example, language: str) -> Example | None:
        """A row of `language` that is not the example, chosen by a hash of seed and row: the same in every run."""
        rows = self._by_language.get(language, [])
        if not rows:
            return None
        key = f"{self.settings.seed}:{language}:{example.origin}".encode()
        start = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") % len(rows)
        others = (rows[(start + i) % len(rows)] for i in range(len(rows)))
        return next((row for row in others if not _same_item(row, example)), None)

    def _render(self, example: Example, prompt: str, shown: list[Exchange]) -> str:
        name, text = self._templates.get(example.language) or self._templates["*"]
        try:
            return self._environment.from_string(text).render(
                demonstrations=[{**e._asdict(), "language_name": LANGUAGES[e.language].name} for e in shown],
                prompt=prompt,
                language=example.language,
                language_name=LANGUAGES[example.language].name,
            )
        except TemplateError as error:
            raise RecipeError(
                f"verbalizer.demonstration.template: {name}: {error}. A template may use demonstrations (language, "
                "language_name, prompt, response of each), prompt, language and language_name."
            ) from error


def _template_texts(settings: Demonstration) -> dict[str, tuple[str, str]]:
    """Language → (file name, template); `*` stands for all languages without one of their own."""
    default = resources.files("dudi_kit.verbalizer").joinpath("templates/default.jinja")
    texts = {"*": ("default.jinja", default.read_text(encoding="utf-8"))}
    chosen = settings.template if isinstance(settings.template, dict) else {"*": settings.template}
    for language, path in chosen.items():
        if path is None:
            continue
        try:
            texts[language] = (path, Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(f"verbalizer.demonstration.template: can't read {path}: {error.strerror}") from error
    return texts


def _own(example: Example | None) -> Exchange | None:
    return Exchange(example.language, example.prompt[-1].content, example.response) if example else None


def _parallel(example: Example, language: str) -> Exchange | None:
    """The example itself, or its English version."""
    if language == example.language:
        return _own(example)
    return example.english if language == "en" else None


def _same_item(a: Example, b: Example) -> bool:
    """The same row, its translation, or another row with the same prompt."""
    if a.origin == b.origin or a.prompt == b.prompt:
        return True
    return a.english is not None and b.english is not None and a.english.prompt == b.english.prompt
