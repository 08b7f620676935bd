"""The largest inputs that training will read, in padded columns: the rows of every step are known before the first."""

from collections.abc import Sequence
from operator import add
from typing import NamedTuple

from dudi_kit.data.batches import MULTIPLE, Sharing, rounded, work
from dudi_kit.data.mixing import Mixture
from dudi_kit.plan.arithmetic import Arithmetic
from dudi_kit.plan.job import ANY, Inputs
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
    alike = all(row.teacher_prompts.get("off_policy") == row.teacher_prompts.get("on_policy") for row in part)
    answers = [_answer(row) for row in part]
    mine = [len(row.prompt) for row in part]
    theirs = [_asked(row, "on_policy") for row in part]
    return Inputs(
        rows=len(part),
        prompt=rounded(max(mine)),
        response=rounded(max(answers)),
        row=rounded(max(map(add, mine, answers))),
        teacher_prompt=rounded(max(theirs)),
        teacher_row=rounded(max(_asked(row, "off_policy") + _answer(row) for row in part)),
        sampled_rows=at_once,
        sampled_prompt=sampled,
        apart=_longest_apart(mine, answers, new_tokens, sharings.student),
        teacher_apart=_longest_apart(theirs, answers, new_tokens, sharings.teacher) if alike else ANY,
    )


def _longest_apart(prompts: Sequence[int], answers: Sequence[int], new_tokens: int, sharing: Sharing | None) -> int:
    """Of rollouts no longer than new_tokens, that beside which all pairs lie in lines of their own; 0: of none.

    As `data.batches` decides, with all rollouts of one length; these are looked at in steps, and told to be apart if
    one in between may be. It is not the shortest alone that are: y and ỹ of one length fill two lines best.
    """
    if sharing is None:
        return ANY
    pairs, prompt, row = len(prompts), max(prompts), max(map(add, prompts, answers))
    for rollout in range(new_tokens, 0, -MULTIPLE):
        longest, shortest = max(row, prompt + rollout), max(row, prompt + rollout - MULTIPLE + 1)
        apart = work(2 * pairs, rounded(shortest), sharing.hidden, masked=False)
        shared = work(pairs, rounded(row + rollout), sharing.hidden, masked=True)
        if longest > (sharing.window or longest) or apart <= shared:
            return rollout
    return 0


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
    return other != one and all(theirs >= ours for theirs, ours in zip(other, one, strict=True))
