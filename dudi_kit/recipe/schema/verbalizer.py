"""`verbalizer`: what the teacher reads, and how its answer is said in the student's words."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.schema.base import Count, Probability, Seed, Strict, Text, known_language
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

    source: Literal["parallel", "teacher", "pool", "none"] = "parallel"
    """`parallel`: the row itself and its versions in other languages, as the data has them; `teacher`: the same, and
    the teacher is asked once, before training, for the versions that the data lacks; `pool`: other rows of the training
    data, by seed, never the row itself; `none`: the teacher reads the bare prompt."""

    languages: list[DemonstrationLanguage] = Field(default=["same", "en"], min_length=1)
    """Languages of the demonstration in order; `same` is the row's own. Where all of them do not fit, the last ones are
    left out first."""

    terms: list[Term] = Field(default=["on_policy"])
    """Signals whose teacher reads the demonstration."""

    template: TextByLanguage | None = None
    """Jinja file that joins demonstration and prompt, or one for each language; default: those that ship, each in the
    row's own language."""

    seed: Seed = 0
    """Draws the exemplars of `pool`."""

    max_tokens: Count | None = None
    """Longest teacher prompt in tokens, demonstration included. Of a demonstration that does not fit the last parts are
    left out, or all of it, and counted; prompt and response never are. Default: the teacher's context less the longest
    response."""

    max_new_tokens: Count = 512
    """Longest version, task and answer together, that the teacher is asked for under `source: teacher`, in tokens; one
    that is cut there is not shown, and counted."""


class Vocabulary(Strict):
    """How teacher probabilities over its pieces become probabilities over the student's."""

    mapping: Literal["auto", "shared", "remap", "align"] = "auto"
    """`shared`: same pieces, same ids, padded rows cut. `remap`: the same pieces under other ids. `align`: different
    tokenizers; the teacher reads its own tokens of the same text, and both tokenisations are cut at their common byte
    boundaries. `auto` looks at the tokenizers and at the recipe's rows, picks, and says why."""

    meets: Literal["exact", "project"] = "project"
    """Under `align`, which teacher pieces a student piece is compared with. `exact`: those of equal bytes; `project`:
    the mass of a longer teacher piece also goes to the student's first piece of its bytes, where that is certain. All
    else is one bucket. `project` fits held-out text better in nearly every language (benchmarks/vocabulary.md)."""

    overrides: Text | None = None
    """YAML file, teacher piece → student piece, that corrects the mapping: the teacher's mass on the one is said with
    the other. Pieces are named by their text, so that one file serves many tokenizers."""

    min_coverage: Probability = 0.9
    """Least share of a language's response tokens on which the teacher must have a word, a distribution or a span
    score."""

    below: Literal["error", "warn"] = "error"
    """What the plan does with a language below `min_coverage`: refuse, or say so and go on."""

    label_words: Text | None = None
    """File of label words of your own (set → label → language → words), beside those that ship; a set of the same name
    takes a shipped one's place. Rows declare their set in `data.train.<name>.labels`."""


class Verbalizer(Strict):
    """Both halves of the cross-lingual verbalizer."""

    demonstration: Demonstration = Demonstration()
    vocabulary: Vocabulary = Vocabulary()
