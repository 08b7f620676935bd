"""The first half of the verbalizer: a cross-lingual demonstration z in front of the teacher's prompt.

z shows a task with its reference answer, in the row's language and in English, so that a teacher strong in
English brings that strength to the target language (DuDi, arXiv 2606.04694). The student never reads z: what the
teacher knows because of z reaches it only through the teacher's probabilities. The teacher keeps its own chat template;
z goes into the last user turn, whose text a sandboxed Jinja template writes.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dudi_kit.data.asked import Ask, nobody
from dudi_kit.data.example import Example, Exchange, Turn
from dudi_kit.data.formats import plain_prompt
from dudi_kit.data.ledger import Ledger
from dudi_kit.recipe.schema.verbalizer import Demonstration
from dudi_kit.verbalizer.framing import Frames
from dudi_kit.verbalizer.versions import read_version, version_request

NONE_FOR_ROW = "none for this row"
NOT_ASKED = "the teacher was not asked yet"


@dataclass
class Demonstrator:
    """Finds what is shown to the teacher with an example, and writes it into the example's last turn."""

    settings: Demonstration
    pool: Sequence[Example]
    """All training rows: what `pool` draws from, and where versions in other languages are found."""

    ledger: Ledger
    ask: Ask = nobody
    """Finds what the teacher was asked for."""

    asked: Counter[str] = field(default_factory=Counter)
    """language → parts that the teacher was asked for and has answered"""

    failed: Counter[str] = field(default_factory=Counter)
    """language → those that can't be shown"""

    def __post_init__(self) -> None:
        self._frames = Frames(self.settings)
        self._by_language: dict[str, list[Example]] = {}
        self._versions: dict[tuple[str, str, str], Example] = {}
        """(dataset, item, language) → row"""
        for example in self.pool:
            self._by_language.setdefault(example.language, []).append(example)
            if example.item is not None:
                self._versions[example.origin.dataset, example.item, example.language] = example

    def wanted(self, example: Example) -> list[str]:
        """Languages that the example's demonstration should have, in order, each once."""
        return list(dict.fromkeys(example.language if code == "same" else code for code in self.settings.languages))

    def turns(self, example: Example) -> tuple[Turn, ...]:
        """The example's turns with all of its demonstration; its own turns where there is nothing to show."""
        return self.framed(example, self.exchanges(example))

    def framed(self, example: Example, shown: Sequence[Exchange]) -> tuple[Turn, ...]:
        """The example's turns, the last one rewritten to show the demonstration before the prompt."""
        if not shown:
            return example.prompt
        *earlier, last = example.prompt
        return (*earlier, Turn("user", self._frames.render(example.language, last.content, shown)))

    def exchanges(self, example: Example) -> list[Exchange]:
        """What is shown for one example, in the order of `languages`; what there is not is counted."""
        if self.settings.source == "none":
            return []
        found = {code: self._part(example, code) for code in self.wanted(example)}
        shown = [part for part in found.values() if isinstance(part, Exchange)]
        # What was not asked yet is told by the plan, in one line with all that the teacher is to write.
        reasons = {code: part for code, part in found.items() if isinstance(part, str) and part != NOT_ASKED}
        if not shown:
            events = {f"taught without a demonstration: {reason}": None for reason in reasons.values()}
        else:
            events = {f"demonstration without its {code} part: {reason}": None for code, reason in reasons.items()}
        for event in events:
            self.ledger.count(event, example.language, str(example.origin))
        return shown

    def _part(self, example: Example, language: str) -> Exchange | str:
        """The part in one language, or why there is none."""
        if self.settings.source == "pool":
            return self._from_pool(example, language) or NONE_FOR_ROW
        version = self._version(example, language)
        if version is not None or self.settings.source == "parallel":
            return version or NONE_FOR_ROW
        answer = self.ask(version_request(example, language, self.settings.max_new_tokens))
        if answer is None:
            return NOT_ASKED
        part = read_version(answer, example, language)
        self.asked[example.language] += 1
        self.failed[example.language] += isinstance(part, str)
        return part

    def _version(self, example: Example, language: str) -> Exchange | None:
        """The example itself, or its version in another language as the data has it."""
        if language == example.language:
            return _own(example)
        if language == "en" and example.english is not None:
            return example.english
        if example.item is None:
            return None
        return _own(self._versions.get((example.origin.dataset, example.item, language)))

    def _from_pool(self, example: Example, language: str) -> Exchange | None:
        """The version in `language` of an exemplar of the row's own language; else an exemplar of that language."""
        exemplar = self._draw(example, example.language)
        version = self._version(exemplar, language) if exemplar else None
        return version or _own(self._draw(example, language))

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


def _own(example: Example | None) -> Exchange | None:
    return Exchange(example.language, example.prompt[-1].content, example.response) if example else None


def _same_item(a: Example, b: Example) -> bool:
    """The same row, its version in another language, or another row with the same prompt."""
    if a.origin[1:] == b.origin[1:] or a.prompt == b.prompt:
        return True
    if a.item is not None and a.item == b.item and not {*a.origin[:2]}.isdisjoint(b.origin[:2]):
        return True  # items are named within a dataset, and two datasets may read one file
    return _english_prompt(a) is not None and _english_prompt(a) == _english_prompt(b)


def _english_prompt(example: Example) -> str | None:
    """What tells that two rows are translations of each other; an English row is its own English version."""
    if example.language == "en":
        return plain_prompt(example.prompt)
    return example.english.prompt if example.english else None
