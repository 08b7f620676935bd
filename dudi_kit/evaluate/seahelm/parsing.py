"""What a response says, as SEA-HELM v1.2.1 reads it: a label after the answer tag, or the rest of the tag's line.

The tag is a regular expression, as it is for SEA-HELM. Task files are untrusted, and a repetition in a regular
expression can take for ever, so `check_tag` allows none; a tag without special characters means itself. All of
SEA-HELM's tasks have a tag; for a task without (an empty tag) the whole response is the answer.

SEA-HELM puts the labels of the rows into its expression in the order of a Python set, so where one label is the
beginning of another its result depends on the process. Here the longest label that fits is read; of equally long ones
the order does not matter. SEA-HELM's labels are regular expressions too; here they mean themselves, and none of its own
labels has a special character.
"""

import re
import string
from collections.abc import Callable, Sequence

from dudi_kit.errors import DataError

LabelReader = Callable[[str | None], str | None]
"""Response → one of the labels as they are written, or None: SEA-HELM's `null`."""

LineReader = Callable[[str | None], str]
"""Response → its answer, which may be empty."""

_EDGES = string.punctuation + " \n"
_REPEATS_OR_GROUPS = re.compile(r"\\.|([*+?{()])", re.DOTALL)


def label_reader(tag: str, labels: Sequence[str]) -> LabelReader:
    """Reads classifications and multiple choice; a missing response is an empty one.

    Found is the first place with the tag, then white space or `*`, then labels without anything between them, of which
    the last counts; case is ignored and nothing need end the label. Without such a place the whole response is looked
    up: lower-cased, ASCII punctuation and blanks cut from both ends, white space collapsed.
    """
    check_tag(tag)
    check_labels(labels)
    ordered = sorted(labels, key=lambda label: (-len(label), label))
    pattern = _behind(tag, rf"[\s*]*({'|'.join(map(re.escape, ordered))})+", re.IGNORECASE)
    by_lower = {label.lower(): label for label in labels}

    def read(response: str | None) -> str | None:
        return by_lower.get(_bare(_after(pattern, response or "")))

    return read


def line_reader(tag: str) -> LineReader:
    """Reads answers to questions, summaries and translations; a missing response is an empty one.

    The answer is what follows the first tag (in its own case), after any white space, backticks and `*`, to the end of
    that line. Without a tag it is the whole response.
    """
    check_tag(tag)
    pattern = _behind(tag, r"[\s`*]*(.*)")
    return lambda response: _after(pattern, response or "")


def check_tag(tag: str) -> None:
    """Refuse what is no regular expression, repeats or has groups; a DataError that says what to write."""
    if any(match[1] for match in _REPEATS_OR_GROUPS.finditer(tag)):
        raise DataError(
            f"answer tag {tag!r}: a tag is a regular expression without repetitions and groups. "
            r"Write \*, \+, \?, \{, \( or \) for the characters themselves"
        )
    try:
        re.compile(tag)
    except re.error as error:
        raise DataError(f"answer tag {tag!r} is no regular expression: {error}. Put \\ before the character") from error


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels that no answer could be told apart by or could ever give; a DataError that names them."""
    if len(labels) < 2:
        raise DataError(f"labels {list(labels)!r}: a choice needs two labels or more")
    seen: dict[str, str] = {}
    for label in labels:
        before = seen.get(label.lower())
        seen[label.lower()] = label
        if before is not None:
            raise DataError(
                f"labels {before!r} and {label!r} are the same in lower case, and answers are compared in lower case. "
                "Rename one"
            )
        if label.lower() == "null":
            raise DataError(f"label {label!r}: null is SEA-HELM's word for an answer without a label. Rename it")
        if not label.strip() or _bare(label) != label.lower():
            raise DataError(
                f"label {label!r} can never be answered: ASCII punctuation and blanks are cut from both ends of an "
                f"answer and white space is collapsed. Write {_bare(label)!r}"
            )


def _behind(tag: str, answer: str, flags: int = 0) -> re.Pattern[str] | None:
    return re.compile(tag + answer, flags) if tag else None


def _after(pattern: re.Pattern[str] | None, response: str) -> str:
    match = None if pattern is None else pattern.search(response)
    found = None if match is None else match[1]
    return (response if found is None else found).strip()


def _bare(text: str) -> str:
    return " ".join(text.lower().strip(_EDGES).split())
