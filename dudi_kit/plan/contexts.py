"""Does every input fit into the model that reads it? Better told now than by an index error at step 4,000."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from dudi_kit.data.example import Example
from dudi_kit.errors import RecipeError
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema import Recipe


class Need(NamedTuple):
    """An input that a model will read, in tokens."""

    who: str
    row: Row
    prompt: int
    answer: int

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.prompt + self.answer


def check_contexts(
    recipe: Recipe, examples: Sequence[Example], rows: Sequence[Row], contexts: Mapping[str, int | None]
) -> None:
    """Every input that will be read fits into the model that reads it. contexts: longest inputs in tokens."""
    needs = [need for row in rows for need in _needs(recipe, row)]
    for who, context in contexts.items():
        longest = max((need for need in needs if need.who == who), key=lambda need: need.tokens, default=None)
        if context is not None and longest is not None and longest.tokens > context:
            answer = "rollouts.max_new_tokens" if longest.answer == recipe.rollouts.max_new_tokens else "response"
            raise RecipeError(
                f"{who}: its context is {context:,} tokens and {examples[longest.row.index].origin} needs "
                f"{longest.tokens:,} (prompt {longest.prompt:,}, {answer} {longest.answer:,}). Lower data.max_length "
                f"with data.on_too_long: skip, or rollouts.max_new_tokens, or choose a {who} with a longer context."
            )


def _needs(recipe: Recipe, row: Row) -> Iterator[Need]:
    """What is read of one row: y by student and off-policy teacher, ỹ by student and on-policy teacher."""
    signals, sample = recipe.signals, recipe.rollouts.max_new_tokens
    yield Need("student", row, len(row.prompt), len(row.response))
    if signals.sequence.weight or signals.on_policy.weight:
        yield Need("student", row, len(row.prompt), sample)
    if row.teacher_prompts and signals.off_policy.weight:
        heard = row.reading.ids if row.reading else row.response
        yield Need("teacher", row, len(row.teacher_prompts["off_policy"]), len(heard))
    if row.teacher_prompts and signals.on_policy.weight:
        yield Need("teacher", row, len(row.teacher_prompts["on_policy"]), sample)
