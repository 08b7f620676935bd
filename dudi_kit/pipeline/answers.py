"""Between plan and training: the teacher writes what the rows lack, once.

Answers lie in `<output>/.asked/`, a file for each teacher, which all runs share; those that a run uses are copied into
its run directory, from which its training reads them. The teacher answers in a process of its own (`asking`).
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from dudi_kit.console import notice
from dudi_kit.data.asked import Asked, answer_line, read_answers
from dudi_kit.errors import DudiError, Exit, Interrupted
from dudi_kit.plan.chain import Stage
from dudi_kit.plan.fingerprint import digest
from dudi_kit.plan.layout import RunDir, write_text
from dudi_kit.plan.schema import Plan
from dudi_kit.train.launch import wait_for

WAY_OF_ASKING = 1
"""Goes up when the same request would be answered in another way: then nothing old is found any more."""


class AskingStopped(DudiError):
    """The process that asked the teacher has already said on stderr why it ended."""

    def __init__(self, text: str, code: Exit) -> None:
        super().__init__(text)
        self.exit_code = code


def answers_file(stage: Stage, output: Path | None = None) -> Path:
    """Where the answers of the stage's teacher are kept: named by all that they depend on, the requests aside.

    output: folder of the run directories; default: the stage's own.
    """
    settings = stage.depends_on["settings"]["teacher"] or {}  # a recipe may have none, and then asks nothing
    teacher = {
        "way": WAY_OF_ASKING,
        # What is not set says nothing: a key that a later version adds finds the old answers.
        "settings": {key: value for key, value in settings.items() if value is not None and key != "cache"},
        "lock": stage.depends_on["dependencies"].get("teacher"),
    }
    return (output or stage.run.path.parent) / ".asked" / f"{digest(teacher)[:16]}.jsonl"


def asked_of(stage: Stage) -> Asked:
    """What the stage's teacher has answered so far, for this run or another."""
    return Asked(read_answers([stage.run.asked, answers_file(stage)]))


def keep_asked(run: RunDir, asked: Asked) -> None:
    """Write down which answers the run's rows are made of, and which are still missing."""
    answers = "".join(answer_line(key, answer) for key, answer in asked.used.items())
    requests = [json.dumps(request.as_json(), ensure_ascii=False) + "\n" for request in asked.missing.values()]
    for path, text in ((run.asked, answers), (run.requests, "".join(requests))):
        if text:
            write_text(path, text)
        else:
            path.unlink(missing_ok=True)


def settled(stage: Stage, planned: Plan, plan_again: Callable[[], Plan]) -> Plan:
    """The stage's plan with nothing left to ask. Its teacher must be there.

    Twice at most: a response has to be written before its version in another language can be asked for.
    """
    before = set(planned.notices)
    for _ in range(2):
        if planned.unasked:
            _ask(stage, planned.unasked)
            planned = plan_again()
    assert planned.unasked == 0, "every request has an answer"
    for text in planned.notices:
        if text not in before:
            notice(f"  note       {text}")
    return planned


def _ask(stage: Stage, count: int) -> None:
    run = stage.run
    notice(f"{stage.recipe.name}: asking the teacher for {count:,} texts", style="bold")
    try:
        code = wait_for([sys.executable, "-m", "dudi_kit.pipeline", str(run.path), str(answers_file(stage))])
    except KeyboardInterrupt:
        raise Interrupted("stopped; what the teacher has answered is kept, the rest is asked next time") from None
    if code < 0:
        raise AskingStopped(
            f"the process that asked the teacher was killed by signal {-code}. Out of memory shows as signal 9: lower "
            "evaluation.batch_size. What it has answered is kept.",
            Exit.ENVIRONMENT,
        )
    if code:
        known = Exit(code) if code in set(Exit) else Exit.ENVIRONMENT
        raise AskingStopped("the teacher could not be asked; the reason stands above. Its answers are kept.", known)
