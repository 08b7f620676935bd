"""`verbalizer`: what the teacher reads, and how its answer is said in the student's words."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.schema.base import Count, Strict, known_language
from dudi_kit.recipe.schema.data import TextByLanguage

DemonstrationLanguage = Annotated[
    str,
    AfterValidator(lambda code: code if code == "same" else known_language(code)),
    WithJsonSchema({"type": "string", "enum": ["same", *LANGUAGES]}),
]
"""A language code, or `same` for the row's own."""

Term = Literal["on_policy", "off_policy"]


class Demonstration(Strict):
    """z: the same task shown with its reference answer, in front of the teacher's prompt, never the student's."""

    source: Literal["parallel", "pool", "none"] = "parallel"
    """`parallel`: the row itself and its English version; `pool`: other rows of the training data, by seed, never the
    row itself; `none`: the teacher reads the bare prompt."""

    languages: list[DemonstrationLanguage] = Field(default=["same", "en"], min_length=1)
    """Languages of the demonstration in order; `same` is the row's own."""

    terms: list[Term] = Field(default=["on_policy"])
    """Signals whose teacher reads the demonstration."""

    template: TextByLanguage | None = None
    """Jinja file that joins demonstration and prompt, or one for each language; default: the one that ships."""

    seed: int = 0
    """Draws the exemplars of `pool`."""

    max_tokens: Count | None = None
    """Longest teacher prompt, demonstration included; a row whose demonstration does not fit is taught without it, and
    counted. Default: the teacher's context less the longest response."""


class Vocabulary(Strict):
    """How teacher probabilities over its pieces become probabilities over the student's."""

    mapping: Literal["auto", "shared", "remap", "align"] = "auto"
    """`shared`: same pieces, same ids, padded rows cut. `auto` picks and says why."""


class Verbalizer(Strict):
    """Both halves of the cross-lingual verbalizer."""

    demonstration: Demonstration = Demonstration()
    vocabulary: Vocabulary = Vocabulary()
