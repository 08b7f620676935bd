"""`responses: teacher`: y is what the teacher writes to the row's prompt, as in sequence-level distillation."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from dudi_kit.data.asked import Answer, Ask, Request
from dudi_kit.data.example import Example
from dudi_kit.data.formats import tidy
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.script import is_mostly_in
from dudi_kit.data.sources import BadRow
from dudi_kit.recipe.schema.data import Responses, TeacherResponses


def asked_of_teacher(responses: Responses) -> TeacherResponses | None:
    """How the teacher is to be asked; None where the data's own responses stay."""
    if isinstance(responses, TeacherResponses):
        return responses
    return TeacherResponses.model_validate({"from": "teacher"}) if responses == "teacher" else None


def with_responses(examples: Iterable[Example], responses: Responses, ask: Ask, ledger: Ledger) -> Iterator[Example]:
    """The examples with the responses that the recipe asks for; what can't be used is counted by language.

    A row that the teacher was not asked for yet keeps the data's response until it was.
    """
    settings = asked_of_teacher(responses)
    if settings is None:
        yield from examples
        return
    for example in examples:
        answer = ask(response_request(example, settings))
        text = example.response if answer is None else _usable(answer, example, settings, ledger)
        if text is not None:
            yield replace(example, response=text)
        elif settings.on_failure == "corpus":
            yield example


def response_request(example: Example, settings: TeacherResponses) -> Request:
    """The row's prompt as it stands: no demonstration."""
    return Request(
        example.prompt,
        settings.max_new_tokens,
        example.language,
        example.language,
        "response",
        temperature=settings.temperature,
        seed=settings.seed,
    )


def _usable(answer: Answer, example: Example, settings: TeacherResponses, ledger: Ledger) -> str | None:
    """The response, or None where it was counted as a failure."""
    then = "row left out" if settings.on_failure == "skip" else "the data's kept"
    if answer.fault is not None:
        ledger.count(f"teacher's response {answer.fault}: {then}", example.language, str(example.origin))
        return None
    try:
        text = tidy(answer.text, "response")
    except BadRow as bad:
        ledger.count(f"teacher's response unusable ({bad.kind}): {then}", example.language, str(example.origin))
        return None
    if not is_mostly_in(text, example.language):
        # Kept: code, names and numbers are answers too. But a teacher that answers in English should be seen to.
        ledger.count("teacher's response mostly in another script", example.language, str(example.origin))
    return text
