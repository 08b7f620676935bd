"""A row's version in another language, written by the teacher: how it is asked for, and how its answer is read.

The teacher is asked in the language that is wanted. It gets prompt and reference answer between marks and has to return
both between the same marks. An answer that is anything else is no version: it is counted by its fault, and the row is
taught without that part.
"""

import re
from functools import cache
from importlib import resources

import yaml

from dudi_kit.data.asked import Answer, Request
from dudi_kit.data.example import Example, Exchange, Turn
from dudi_kit.data.formats import tidy
from dudi_kit.data.script import is_mostly_in
from dudi_kit.data.sources import BadRow

# Small teachers often end their turn without the last mark; where they end by themselves nothing is lost.
MARKED = re.compile(r"\s*<task>(?P<task>.*)</task>\s*<answer>(?P<answer>.*?)(?:</answer>\s*)?", re.DOTALL)
MARK = re.compile(r"</?(?:task|answer)>")


def version_request(example: Example, target: str, max_new_tokens: int) -> Request:
    """What the teacher is asked, to write `example` in the language `target`."""
    task = f"<task>\n{example.prompt[-1].content}\n</task>\n<answer>\n{example.response}\n</answer>"
    turn = Turn("user", f"{_sentences()[target]}\n\n{task}")
    return Request((turn,), max_new_tokens, example.language, target, "version")


def read_version(answer: Answer, example: Example, target: str) -> Exchange | str:
    """The version that an answer holds, or in a few words what is wrong with it."""
    if answer.fault is not None:
        return f"the teacher's is {answer.fault}"
    found = MARKED.fullmatch(answer.text)
    if found is None or any(MARK.search(part) for part in found.groups()):
        return "the teacher did not keep to the form asked for"
    try:
        version = Exchange(target, tidy(found["task"], "task"), tidy(found["answer"], "answer"))
    except BadRow:
        return "the teacher left a part of it empty"
    if _is_copied(version.prompt, example.prompt[-1].content):
        return "the teacher copied it instead of translating"
    if not is_mostly_in(f"{version.prompt} {version.response}", target):
        return "the teacher wrote it in another script"
    return version


def _is_copied(task: str, original: str) -> bool:
    """The same text; sums and other tasks without letters are the same in every language."""
    return task == original and any(c.isalpha() for c in task)


@cache
def _sentences() -> dict[str, str]:
    file = resources.files("dudi_kit.verbalizer") / "requests.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
