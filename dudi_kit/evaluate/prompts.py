"""How a row of a task becomes what a model reads: a conversation, or a text to complete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dudi_kit.data.example import Turn
from dudi_kit.recipe.schema.task import Mode, TaskFile
from dudi_kit.recipe.task_files import PLACEHOLDER

Prompt = tuple[Turn, ...] | str
"""Turns for a model that chats; a text for one that completes."""


SEPARATOR = "\n\n"
"""Between the parts of a text to complete."""


@dataclass(frozen=True)
class Frame:
    """The templates of a task in one language."""

    lead: str
    """Stands before the first question."""

    question: str
    answer: str
    """As in `{answer_tag} {label}`."""

    answer_tag: str
    tag_is_given: bool
    """The prompt ends with the answer tag, and the model goes on behind it."""

    separator: str
    """Between the parts of a text to complete, and at its end where no tag is given."""

    labels: Mapping[str, str]
    """Label → its word."""

    until: str | None
    """What ends an answer besides an end of turn, where a text is completed: what ends those of the worked examples."""


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with `{name}` replaced where the values have the name; all other braces are text."""
    return PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)


def own_frame(task: TaskFile, language: str, mode: Mode) -> Frame:
    """The frame that the task file has itself. Only a model that chats is told the form of the answer."""
    own = task.languages[language]
    labels = task.labels_in(language)
    tag = own.answer_tag or ""
    said = {"answer_tag": tag, "labels": ", ".join(labels.values())}
    parts = [own.instruction, own.format] if mode == "instruct" else [own.instruction]
    return Frame(
        lead="\n\n".join(fill(part, said).strip() for part in parts if part.strip()),
        question=fill(own.question, said),
        answer="{answer_tag} {label}" if tag else "{label}",
        answer_tag=tag,
        tag_is_given=mode == "base" and bool(tag),
        separator=SEPARATOR,
        labels=labels,
        until=None if mode == "instruct" else "\n" if tag else SEPARATOR,
    )


def ask(frame: Frame, question: str, shown: Sequence[tuple[str, str]], mode: Mode) -> Prompt:
    """The prompt of a question. shown: (question, answer) of each worked example, rendered."""
    first, *_ = [*(asked for asked, _ in shown), question]
    led = f"{frame.lead}\n\n{first}".strip()
    if mode == "instruct":
        turns = [turn for asked, answered in shown for turn in (Turn("user", asked), Turn("assistant", answered))]
        turns.append(Turn("user", question))
        return (Turn("user", led), *turns[1:])
    glue = "\n" if frame.tag_is_given else frame.separator
    blocks = [f"{asked}{glue}{answered}" for asked, answered in shown]
    text = frame.separator.join([*blocks, question])
    text = f"{frame.lead}{frame.separator}{text}".strip()
    return f"{text}\n{frame.answer_tag}" if frame.tag_is_given else f"{text}{frame.separator}"
