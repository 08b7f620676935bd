"""`rollouts`: how the student's own samples are drawn."""

from typing import Annotated

from pydantic import Field

from dudi_kit.recipe.schema.base import Count, Strict, Weight


class Rollouts(Strict):
    """ỹ: one response of the student itself for each prompt, shared by the signals that need it."""

    max_new_tokens: Count = 128
    """Longest sample, in tokens; one that did not end by then is marked as truncated and gets no end-of-turn."""

    temperature: Weight = 1.0
    """Of the sampling; 0 is greedy."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the smallest set of pieces with this much mass."""
