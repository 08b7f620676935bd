"""The largest inputs that training will read, in padded columns: the rows of every step are known before the first."""

from collections.abc import Sequence
from typing import NamedTuple

from dudi_kit.data.batches import Sharing, blocks_of, rounded
from dudi_kit.data.mixing import Mixture
from dudi_kit.plan.arithmetic import Arithmetic
from dudi_kit.plan.job import Inputs
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.verbalizer import Term

STEPS = 500
"""Steps that are looked at: enough for most epochs, and done in a second."""


class Sharings(NamedTuple):
    """How student and teacher read the two responses of a prompt in one line; None where they don't, or read one."""

    student: Sharing | None
    teacher: Sharing | None


def largest_inputs(
    rows: Sequence[Row], mixture: Mixture, batches: Arithmetic, new_tokens: int, at_once: int, sharings: Sharings
) -> tuple[Inputs, ...]:
    """The micro-batches of the first steps, without those that another one exceeds in everything.

    new_tokens: of a rollout, taken at its longest; it decides with the rest which rows share a micro-batch. at_once:
    prompts that a process continues at once, the longest first.
    """
    share = batches.batch_size // batches.processes
    found: set[Inputs] = set()
    for step in range(min(batches.steps, STEPS)):
        indices = mixture.rows(step, batches.batch_size)
        for first in range(0, len(indices), share):
            mine = sorted((rows[i] for i in indices[first : first + share]), key=lambda row: _tokens(row, new_tokens))
            sampled = rounded(max(len(row.prompt) for row in mine))
            for start in range(0, share, batches.micro_batch_size):
                part = mine[start : start + batches.micro_batch_size]
                found.add(_inputs(part, at_once, sampled, new_tokens, sharings))
    return tuple(sorted(one for one in found if not any(_exceeds(other, one) for other in found)))


def _inputs(part: Sequence[Row], at_once: int, sampled: int, new_tokens: int, sharings: Sharings) -> Inputs:
    prompts = [row.prompt for row in part]
    theirs = [[row.teacher_prompts.get(term, []) for row in part] for term in ("off_policy", "on_policy")]
    lengths = [_answer(row) for row in part] + [new_tokens] * len(part)
    return Inputs(
        rows=len(part),
        prompt=rounded(max(len(row.prompt) for row in part)),
        response=rounded(max(_answer(row) for row in part)),
        row=rounded(max(len(row.prompt) + _answer(row) for row in part)),
        teacher_prompt=rounded(max(_asked(row, "on_policy") for row in part)),
        teacher_row=rounded(max(_asked(row, "off_policy") + _answer(row) for row in part)),
        sampled_rows=at_once,
        sampled_prompt=sampled,
        shared=_shared(prompts * 2, lengths, sharings.student),
        teacher_shared=_shared(theirs[0] + theirs[1], lengths, sharings.teacher),
    )


def _shared(prompts: Sequence[Sequence[int]], lengths: Sequence[int], sharing: Sharing | None) -> int:
    """Columns of the longest line where all pairs are read in one each; else 0."""
    blocks = blocks_of(prompts, lengths, sharing)
    if len(blocks) > len(prompts) // 2:
        return 0
    return rounded(max(len(prompts[rows[0]]) + sum(lengths[row] for row in rows) for rows in blocks))


def _asked(row: Row, term: Term) -> int:
    """Tokens of the teacher's prompt; none where it is not asked."""
    return len(row.teacher_prompts.get(term, ()))


def _answer(row: Row) -> int:
    """The response, in the student's or the teacher's tokens, whichever are more."""
    return max(len(row.response), len(row.reading.ids) if row.reading else 0)


def _tokens(row: Row, new_tokens: int) -> int:
    """As `train.loop` sorts them, with every rollout at its longest."""
    return max(len(ids) for ids in (row.prompt, *row.teacher_prompts.values())) + max(_answer(row), new_tokens)


def _exceeds(other: Inputs, one: Inputs) -> bool:
    alike = (other.shared > 0, other.teacher_shared > 0) == (one.shared > 0, one.teacher_shared > 0)
    return alike and other != one and all(theirs >= ours for theirs, ours in zip(other, one, strict=True))
