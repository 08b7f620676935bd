"""From a row's columns to prompt and response: the three forms of `data.….format`.

All texts leave here in one shape: Unicode NFC, no white space at the outside, not empty, valid Unicode.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dudi_kit.data.example import Turn
from dudi_kit.data.rendering import Refused, compile_template, describe
from dudi_kit.data.sources import BadRow
from dudi_kit.errors import DataError
from dudi_kit.recipe.languages import LANGUAGES
from dudi_kit.recipe.schema.data import Chat, Columns, Format, Template, TextByLanguage

ROLES = ("system", "user", "assistant")

Values = Mapping[str, Any]


class Conversation(NamedTuple):
    """What a format finds in a row."""

    prompt: tuple[Turn, ...]
    response: str


Reader = Callable[[Values, str], Conversation]
"""(columns of the row, its language) → conversation; raises BadRow."""


def compile_format(format: Format) -> Reader:
    """The reader of a format. Templates are compiled here, once; a wrong one is a DataError."""
    match format:
        case Columns():
            return lambda values, language: _read_columns(format, values)
        case Chat():
            return lambda values, language: _read_chat(format.messages, values)
        case Template():
            prompt = _by_language("prompt", format.prompt)
            response = _by_language("response", format.response)
            return lambda values, language: Conversation(
                (Turn("user", prompt(values, language)),), response(values, language)
            )


def plain_prompt(turns: Sequence[Turn]) -> str:
    """Turns as one plain text for an Exchange: the contents, a blank line between them."""
    return "\n\n".join(turn.content for turn in turns)


def tidy(text: str, where: str) -> str:
    """Text in NFC without white space at the outside; BadRow where it is not valid Unicode or nothing is left."""
    if not _is_unicode(text):
        raise BadRow("not UTF-8", f"{where}: expected UTF-8, found bytes that are not; save the file as UTF-8")
    text = unicodedata.normalize("NFC", text).strip()
    if not text:
        raise BadRow("empty text", f"{where}: expected a text, found an empty one")
    return text


def column(values: Values, name: str) -> Any:
    """The value of a column; BadRow names the columns that there are."""
    if name not in values:
        raise BadRow("missing column", f"no column {name!r}; the row has {', '.join(map(repr, values)) or 'none'}")
    return values[name]


def text_column(values: Values, name: str) -> str:
    """The tidied text of a column."""
    value = column(values, name)
    if not isinstance(value, str):
        raise BadRow("not a text", f"column {name!r}: expected a text, found {describe(value)}")
    return tidy(value, f"column {name!r}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_columns(format: Columns, values: Values) -> Conversation:
    turns = [Turn("user", text_column(values, format.prompt))]
    # Most rows of a table with a system column may have none.
    if format.system is not None and column(values, format.system) not in (None, ""):
        turns.insert(0, Turn("system", text_column(values, format.system)))
    return Conversation(tuple(turns), text_column(values, format.response))


def _read_chat(name: str, values: Values) -> Conversation:
    messages = column(values, name)
    if not isinstance(messages, list | tuple):
        found = describe(messages)
        raise BadRow("not a list", f"column {name!r}: expected a list of {{role, content}}, found {found}")
    turns = [_turn(message, f"column {name!r}, message {i}") for i, message in enumerate(messages, start=1)]
    roles = [turn.role for turn in turns]
    if roles[-2:] != ["user", "assistant"]:
        found = " then ".join(roles[-2:]) or "no message"
        expected = "expected a user's message and the assistant's answer at the end"
        raise BadRow("no answer at the end", f"column {name!r}: {expected}, found {found}")
    if "system" in roles[1:]:
        raise BadRow("late system message", f"column {name!r}: expected `system` in the first place only")
    return Conversation(tuple(turns[:-1]), turns[-1].content)


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise BadRow("not a message", f"{where}: expected {{role, content}}, found {describe(message)}")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise BadRow("unknown role", f"{where}: expected a role of {', '.join(ROLES)}, found {describe(role)}")
    if not isinstance(content, str):
        raise BadRow("not a text", f"{where}: expected a text as content, found {describe(content)}")
    return Turn(role, tidy(content, where))


def _by_language(name: str, sources: TextByLanguage) -> Callable[[Values, str], str]:
    if isinstance(sources, str):
        templates = dict.fromkeys(LANGUAGES, _compiled(name, sources))
    else:
        templates = {code: _compiled(name, source) for code, source in sources.items()}

    def render(values: Values, language: str) -> str:
        if language not in templates:
            raise BadRow("no template", f"format.{name}: no template for {language!r}, only for {', '.join(templates)}")
        try:
            return tidy(templates[language](values), f"format.{name}")
        except Refused as error:
            columns = ", ".join(map(repr, values))
            raise BadRow("template failed", f"format.{name}: {error}; the row has {columns}") from error

    return render


def _compiled(name: str, source: str) -> Callable[[Values], str]:
    try:
        return compile_template(source)
    except Refused as error:
        raise DataError(f"format.{name}: the template {source[:80]!r} can't be used: {error}.") from error
