"""`data`: which rows, in which form and language, mixed how."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from dudi_kit.recipe.schema.base import (
    Count,
    LanguageCode,
    Name,
    Positive,
    Seed,
    Strict,
    Text,
    Weight,
    tag_by,
    tag_by_key,
    tag_by_shape,
)


class Columns(Strict):
    """Prompt and response lie in a column each."""

    type: Literal["columns"] = "columns"
    prompt: Text = "prompt"
    """Column of what the user says."""

    response: Text = "response"
    """Column of the reference response."""

    system: Text | None = None
    """Column of a system message, if any."""


class Chat(Strict):
    """One column holds a list of {role, content}; the last assistant turn is the response, all before it the prompt."""

    type: Literal["chat"]
    messages: Text = "messages"
    """Column of the list."""


TextByLanguage = Annotated[
    Annotated[Text, Tag("plain")] | Annotated[dict[LanguageCode, Text], Tag("mapping")], Discriminator(tag_by_shape)
]


class Template(Strict):
    """Prompt and response are made from the row's columns by small Jinja templates, as in `{{ text }}`."""

    type: Literal["template"]
    prompt: TextByLanguage
    """Template of the prompt, or one for each language."""

    response: TextByLanguage
    """Template of the reference response, or one for each language."""


Format = Annotated[
    Annotated[Columns, Tag("columns")] | Annotated[Chat, Tag("chat")] | Annotated[Template, Tag("template")],
    Discriminator(tag_by("type", default="columns")),
]


class LanguageColumn(Strict):
    """The language of each row stands in a column."""

    column: Text
    """The column's name."""


RowLanguage = Annotated[
    Annotated[LanguageCode, Tag("plain")] | Annotated[LanguageColumn, Tag("mapping")], Discriminator(tag_by_shape)
]


class LabelsColumn(Strict):
    """The label set of each row stands in a column; rows with another text there declare none."""

    column: Text
    """The column's name."""


RowLabels = Annotated[
    Annotated[Text, Tag("plain")] | Annotated[LabelsColumn, Tag("mapping")], Discriminator(tag_by_shape)
]


class English(Strict):
    """Where the English version of a row is: in the row itself, or in another file, joined by a key."""

    path: Text | None = None
    """File of the English rows; default: the row's own file."""

    key: Text | None = None
    """Column that joins the two files; needed with `path`."""

    format: Format = Columns(prompt="english_prompt", response="english_response")
    """How prompt and response stand in the English row."""

    required: bool = True
    """A row without its English version is a bad row. `false`: it is kept and counted, and its demonstration is made
    without that part, or the teacher writes it (`verbalizer.demonstration.source: teacher`)."""


class TeacherResponses(Strict):
    """The teacher writes each row's response, in place of the one in the data: sequence-level distillation."""

    source: Literal["teacher"] = Field(alias="from")
    """Who writes; each prompt is asked once, before training, and its answer is kept."""

    max_new_tokens: Count = 256
    """Longest response that the teacher may write, in its tokens."""

    temperature: Weight = 0.0
    """Of the teacher's sampling; 0 is greedy."""

    seed: Seed = 0
    """Of the teacher's sampling."""

    on_failure: Literal["skip", "corpus"] = "skip"
    """A response that is empty, or was cut at `max_new_tokens`: leave the row out, or keep the data's own response.
    Both are counted."""


Responses = Annotated[
    Annotated[Literal["corpus", "teacher"], Tag("plain")] | Annotated[TeacherResponses, Tag("mapping")],
    Discriminator(tag_by_shape),
]


class _Rows(Strict):
    format: Format = Columns()
    """How prompt and response stand in a row."""

    language: RowLanguage | None = None
    """One code for all rows, or `{column: …}`. Not needed where `languages` is given."""

    languages: list[LanguageCode] | None = Field(default=None, min_length=1)
    """Codes that `{language}` in `path` or `subset` stands for, one after the other; for `builtin` and a language
    column: the languages that are kept."""

    where: dict[Text, Text] = Field(default={})
    """Keep only rows whose column has this text, as in `{task: topic}`; the rest is counted as filtered."""

    english: English | None = None
    """Where the English version of each row is, for demonstrations; `builtin` data needs none."""

    key: Text | None = None
    """Column that the rows of one item share in all languages of this dataset: where demonstrations find a row's
    versions in other languages. `builtin` data needs none."""

    responses: Responses = "corpus"
    """`corpus`: y is the response in the data; `teacher`: the teacher writes y, once, before training. Short for
    `{from: teacher}`, which has settings of its own."""

    limit: Count | None = None
    """Take only this many rows of each language, the first ones (of a file sorted by label, that is one label); the
    rest is counted as left out."""

    weight: Annotated[Weight, Field(le=1000)] = 1.0
    """How often the rows of this dataset are drawn, relative to once an epoch."""

    labels: RowLabels | None = None
    """Set of label words that each response is one of: sentiment, topic, nli, yes_no, choices, or one of your own file;
    or `{column: …}`. What the teacher would say in another language's words is then said in the row's own."""

    demonstrate: bool = False
    """Put the verbalizer's demonstration in front of each prompt. For training a teacher that reads them."""


class FileRows(_Rows):
    """Rows of a .jsonl, .csv, .tsv or .parquet file."""

    VARIANT: ClassVar[str] = "path"
    path: Text
    """File, relative to the recipe; `{language}` in it stands for each of `languages`."""


class HubRows(_Rows):
    """Rows of a dataset on the hub, at a pinned revision."""

    VARIANT: ClassVar[str] = "hub"
    hub: Text
    """`owner/name`."""

    revision: Text
    """Commit or tag."""

    subset: Text | None = None
    """Configuration of the dataset; `{language}` in it stands for each of `languages`."""

    split: Text = "train"
    """Split of the dataset."""


class BuiltinRows(_Rows):
    """Rows of the corpus that ships with dudi-kit: eight languages, four tasks, held out by composition."""

    VARIANT: ClassVar[str] = "builtin"
    builtin: Literal["train", "dev", "test"]
    """Which part of the corpus."""


Dataset = Annotated[
    Annotated[FileRows, Tag("path")] | Annotated[HubRows, Tag("hub")] | Annotated[BuiltinRows, Tag("builtin")],
    Discriminator(tag_by_key({"path": "path", "hub": "hub", "builtin": "builtin"}, default="path")),
]


class Data(Strict):
    """Training and held-out rows."""

    train: dict[Name, Dataset] = Field(min_length=1)
    """Datasets by a name of your own."""

    held_out: dict[Name, Dataset] = Field(default={})
    """Rows that are never trained on; bits per byte are measured on them."""

    language_temperature: Positive = 1.0
    """τ: a language with n rows gets a share in proportion to n^(1/τ). 1 keeps the natural shares, a large one evens
    them."""

    max_length: Count = 1024
    """Longest prompt + response in the student's tokens; a longer row is treated as `on_too_long` says. What the
    teacher reads is bound by its context and by `verbalizer.demonstration.max_tokens`."""

    on_bad_row: Literal["error", "skip"] = "error"
    """A row that can't be read: stop and name it, or leave it out and count it."""

    on_too_long: Literal["error", "skip", "truncate"] = "error"
    """A row over `max_length`: stop and name it, leave it out, or cut the end of its response; the latter two count."""
