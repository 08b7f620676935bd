"""`evaluation`: tasks that are generated and scored, and which models are shown side by side."""

from typing import Literal

from pydantic import Field

from dudi_kit.recipe.schema.base import Count, Name, Strict, Text
from dudi_kit.recipe.schema.data import Dataset

Metric = Literal["accuracy", "macro_f1", "chrf"]
Subject = Literal["teacher", "before", "after"]


class Task(Strict):
    """Prompts with their right answers. Generation is greedy."""

    data: Dataset
    """The rows; their response is the right answer."""

    metrics: list[Metric] = Field(default=["accuracy"], min_length=1)
    """`accuracy` and `macro_f1` compare whole answers after trimming, NFC and lower-casing; `chrf` is sacrebleu's."""

    labels: list[Text] | None = None
    """All answers that a classification may give, in any language; answers outside are counted as null."""

    max_new_tokens: Count = 64
    """Longest answer in tokens; longer ones are cut and counted as truncated."""


class Evaluation(Strict):
    """What is measured after training: bits per byte on `data.held_out`, and these tasks."""

    tasks: dict[Name, Task] = Field(default={})
    """Tasks by a name of your own."""

    models: list[Subject] = Field(default=["teacher", "before", "after"])
    """Which models answer: the teacher, the student before distillation (the cold start) and after."""

    batch_size: Count = 32
    """Rows generated at a time; also where a teacher is asked before training."""
