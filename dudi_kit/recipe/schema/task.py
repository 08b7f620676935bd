"""A task file: rows of a benchmark, how they are asked in each language, and how the answers are scored.

Templates hold `{field}` for a field of the row, and `{answer_tag}` and `{labels}` for what the file itself says.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from dudi_kit.recipe.schema.base import Count, LanguageCode, Name, Strict, Text, tag_by_key

Competency = Literal[
    "understanding", "reasoning", "generation", "instruction_following", "safety", "knowledge", "culture"
]
TaskMetric = Literal["balanced_accuracy", "token_f1", "rouge_l", "chrf++", "strict_pass"]
"""The names of `evaluate.seahelm.metrics`; a test compares."""
Mode = Literal["instruct", "base"]
Scoring = Literal["generation", "logprob"]
ShotCount = Annotated[int, Field(ge=0, le=100)]


class Shots(Strict):
    """Worked examples in front of each question."""

    instruct: ShotCount = 0
    """For a model that chats."""

    base: ShotCount = 5
    """For a model that only completes text."""


class TaskExamples(Strict):
    """Where worked examples come from: one of these."""

    hold_out: Count | None = None
    """Take this many rows out of the test rows; they are never scored, whatever the number of shots is."""

    path: Text | None = None
    """Another file, in the place where the source's own file lies."""

    split: Text | None = None
    """Another split of the hub dataset."""


class _Source(Strict):
    columns: dict[Text, Text] = Field(default={})
    """Field of the templates → column, and `label` → column of the right answer. `prompts.0.text` reaches into a row;
    `{language}` and `{code}` are filled in."""

    id: Text | None = None
    """Column that names a row; default: its number."""

    values: dict[Text, Text] = Field(default={})
    """What stands in the label column → the label of this file, where they differ."""

    examples: TaskExamples | None = None
    """Where worked examples come from; none: only zero-shot."""

    licence: Text | None = None
    """Of the rows, where it is not the task's."""


class LocalFile(_Source):
    """A file below `evaluation.data_home`: .jsonl, .csv, .tsv or .parquet; .json is read as SQuAD."""

    VARIANT: ClassVar[str] = "data"
    data: Text
    """Path below `evaluation.data_home`."""

    header: list[Text] | None = Field(default=None, min_length=1)
    """Names of a .tsv file's columns, in place of its first line."""


class LocalLines(_Source):
    """Files below `evaluation.data_home` whose lines belong together: line 7 of each makes row 7."""

    VARIANT: ClassVar[str] = "lines"
    lines: dict[Text, Text] = Field(min_length=1)
    """Column → file."""


class LocalClasses(_Source):
    """Files below `evaluation.data_home`, one for each label: a text a line. Columns: `text` and `label`."""

    VARIANT: ClassVar[str] = "classes"
    classes: dict[Text, Text] = Field(min_length=2)
    """Label → file."""


class BesideFile(_Source):
    """A file beside the task file, or in a folder below it."""

    VARIANT: ClassVar[str] = "path"
    path: Text
    """Relative to the task file."""


class SeahelmFile(_Source):
    """A file of the SEA-HELM checkout that `evaluation.seahelm_home` names."""

    VARIANT: ClassVar[str] = "seahelm"
    seahelm: Text
    """Path below `evaluation.seahelm_home`."""


class HubTable(_Source):
    """A dataset on the hub."""

    VARIANT: ClassVar[str] = "hub"
    hub: Text
    """`owner/name`."""

    revision: Text
    """Commit or tag; a branch moves."""

    subset: Text | None = None
    """Configuration of the dataset; `{language}` and `{code}` are filled in."""

    split: Text = "test"
    """Split of the dataset."""


class BuiltinRequests(_Source):
    """The requests that ship with dudi-kit, with constraints that can be checked."""

    VARIANT: ClassVar[str] = "builtin"
    builtin: Literal["requests"]
    """Which rows."""


TaskSource = Annotated[
    Annotated[LocalFile, Tag("data")]
    | Annotated[LocalLines, Tag("lines")]
    | Annotated[LocalClasses, Tag("classes")]
    | Annotated[BesideFile, Tag("path")]
    | Annotated[SeahelmFile, Tag("seahelm")]
    | Annotated[HubTable, Tag("hub")]
    | Annotated[BuiltinRequests, Tag("builtin")],
    Discriminator(
        tag_by_key(
            {key: key for key in ("data", "lines", "classes", "path", "seahelm", "hub", "builtin")}, default="data"
        )
    ),
]


class TaskLanguage(Strict):
    """How the task is asked in one language."""

    question: Text
    """The row, as in `Teks: {text}`."""

    instruction: str = ""
    """What is to be done; it stands before the first question."""

    format: str = ""
    """In which form to answer; only models that chat read it."""

    answer_tag: Text | None = None
    """Stands before every answer; an answer is looked for behind it."""

    labels: dict[Text, Text] | None = Field(default=None, min_length=2)
    """Label → its word in this language, in place of the task's own."""

    seahelm_labels: dict[Text, Text] = Field(default={})
    """Label → its word in SEA-HELM's prompt, where that is another one."""

    wording: dict[Text, dict[Text, Text]] = Field(default={})
    """Field → what stands in the row → what the question says, as in {relation: {cause: penyebab}}."""

    code: Text | None = None
    """What `{code}` stands for in the sources; default: the language's code."""

    sources: list[TaskSource] | None = Field(default=None, min_length=1)
    """Where the rows are, in place of the task's own sources; the first that is there is taken."""


class TaskFile(Strict):
    """One task in all its languages."""

    task: Literal[1]
    """Version of this form."""

    name: Name
    """By which recipes name it."""

    competency: Competency
    """The family that its score counts for."""

    group: Name | None = None
    """Tasks of one group count as one task in the competency's mean."""

    description: Text
    """What is asked, in a sentence."""

    licence: Text
    """Of the rows."""

    metric: TaskMetric
    """`balanced_accuracy` of labels; `token_f1` of short answers; `rouge_l` of summaries; `chrf++` of translations;
    `strict_pass`: the constraints of a request are kept."""

    answer_language: LanguageCode | None = None
    """Of the answers, where it is not the question's."""

    fields: list[Text] = Field(min_length=1)
    """What a question shows of each row."""

    labels: dict[Text, Text] | None = Field(default=None, min_length=2)
    """Label → its word, for languages that have no words of their own. All labels of the full set: they are the random
    baseline, whatever subset is run."""

    max_new_tokens: Count = 64
    """Longest answer in tokens."""

    shots: Shots = Shots()
    """Worked examples, unless the recipe says otherwise."""

    seahelm: Text | None = None
    """Name of the task in SEA-HELM, whose prompts `evaluation.seahelm_home` puts in place of ours."""

    sources: list[TaskSource] | None = Field(default=None, min_length=1)
    """Where the rows are; the first that is there is taken. Languages may have their own."""

    languages: dict[LanguageCode, TaskLanguage] = Field(min_length=1)
    """Every language of the task."""

    @property
    def has_labels(self) -> bool:
        """Whether an answer is one of a few labels."""
        return self.metric == "balanced_accuracy"

    @property
    def has_references(self) -> bool:
        """Whether rows have right answers; a request has constraints instead."""
        return self.metric != "strict_pass"

    def labels_in(self, language: str) -> dict[str, str]:
        """Label → word; empty for a task without labels."""
        return self.languages[language].labels or self.labels or {}

    def sources_in(self, language: str) -> list[TaskSource]:
        """Where the rows of a language may be, the first one first."""
        return self.languages[language].sources or self.sources or []
