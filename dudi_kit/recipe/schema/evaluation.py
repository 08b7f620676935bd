"""`evaluation`: tasks that are generated and scored, and which models are shown side by side."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from dudi_kit.recipe.schema.base import Count, LanguageCode, Name, Seed, Strict, Text, tag_by_key
from dudi_kit.recipe.schema.data import Dataset
from dudi_kit.recipe.schema.task import Mode, Scoring, ShotCount

Metric = Literal["accuracy", "macro_f1", "chrf"]
Subject = Literal["teacher", "before", "after"]
BITS = "bits per byte"
"""Stands where a task's name would; no task can be called so."""


class Task(Strict):
    """Prompts with their right answers. Generation is greedy."""

    VARIANT: ClassVar[str] = "data"
    data: Dataset
    """The rows; their response is the right answer."""

    metrics: list[Metric] = Field(default=["accuracy"], min_length=1)
    """`accuracy` and `macro_f1` compare whole answers after trimming, NFC and lower-casing; `chrf` is sacrebleu's."""

    labels: list[Text] | None = None
    """All answers that a classification may give, in any language; answers outside are counted as null."""

    max_new_tokens: Count = 64
    """Longest answer in tokens; longer ones are cut and counted as truncated."""


class NamedTask(Strict):
    """A task that ships with dudi-kit (`dudi-kit tasks` lists them), or one of your own in a file."""

    VARIANT: ClassVar[str] = "task"
    task: Text
    """Name of a task that ships, as in `sentiment`, or a .yaml file of the same form."""

    languages: list[LanguageCode] | None = Field(default=None, min_length=1)
    """Only these; default: all languages of the task."""

    limit: Count | None = None
    """Score at most this many rows of each language: a fixed draw in which every label keeps its share."""

    mode: Mode = "instruct"
    """`instruct`: a conversation that tells the form of the answer; `base`: a text to complete."""

    shots: ShotCount | None = None
    """Worked examples in front of each question; default: what the task says for the mode."""

    revisions: dict[Text, Text] = Field(default={})
    """Dataset on the hub (`owner/name`) → commit or tag at which it is read, in place of the one in the task file."""

    scoring: Scoring = "generation"
    """`generation`: the answer is written and parsed; `logprob`: the label whose words are likeliest is the answer."""


AnyTask = Annotated[
    Annotated[Task, Tag("data")] | Annotated[NamedTask, Tag("task")],
    Discriminator(tag_by_key({"data": "data", "task": "task"}, default="data")),
]


class DuringTraining(Strict):
    """Scores of the student while it trains, on the same few rows every time: before the first step, every so many
    steps, and after the last one. They change nothing of what is learned."""

    every: Count
    """Optimizer steps between two scorings."""

    limit: Count = 16
    """Rows of each task and language, and held-out rows of each language: a fixed draw in which every label keeps its
    share."""

    tasks: list[Name] | None = None
    """Only these of `evaluation.tasks`; default: all of them. Held-out text is always measured."""

    best: Text | None = None
    """The score that picks the best step, whose checkpoint is kept: `bits per byte`, or the name of a task, whose mean
    over its languages is taken. Default: `bits per byte` where there is held-out text, which moves smoothly where a
    weak student's right answers come by chance; else the only task. Rows that pick a step are no fair test of it any
    more."""

    final: Literal["last", "best"] = "last"
    """Which step becomes the final model, of those after the first."""


class Evaluation(Strict):
    """What is measured after training: bits per byte on `data.held_out`, and these tasks."""

    tasks: dict[Name, AnyTask] = Field(default={})
    """Tasks by a name of your own: rows of your own (`data`), or a task that is described in a file (`task`)."""

    data_home: Text | None = None
    """Folder with local copies of benchmarks, where the files lie that named tasks look for before they ask the hub."""

    seahelm_home: Text | None = None
    """Your checkout of SEA-HELM: where it has a prompt for a named task, that one is read in place of ours."""

    seed: Seed = 0
    """Of the rows that `limit` draws, and of the worked examples."""

    models: list[Subject] = Field(default=["teacher", "before", "after"])
    """Which models answer: the teacher, the student before distillation (the cold start) and after."""

    during_training: DuringTraining | None = None
    """Scores while it trains. Default: none."""

    batch_size: Count = 32
    """Rows generated at a time; also where a teacher is asked before training."""
