"""`init`: a first recipe, from a few questions or flags."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from dudi_kit import console
from dudi_kit.cli.app import Panel, command
from dudi_kit.recipe.draft import BUILTIN, SCRATCH, Columns, Model, Rows, Wishes, draft, machine
from dudi_kit.recipe.languages import ALIASES, LANGUAGES

SCHEMA = "recipe.v1.schema.json"
TEACHER, STUDENT, HARDWARE = "Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-0.5B", "1xH100-80G"
"""What is offered: a pair of the paper, which shares its tokenizer."""

T = TypeVar("T")

COLUMNS = {
    "prompt": ("prompt", "instruction", "question", "input", "query"),
    "response": ("response", "output", "answer", "completion", "target"),
    "messages": ("messages", "conversations", "conversation"),
    "language": ("language", "lang"),
    "english_prompt": ("english_prompt", "en_prompt", "prompt_en"),
    "english_response": ("english_response", "en_response", "response_en"),
}
"""Names under which the columns of a dataset are known, the likeliest first."""


class _Asker:
    """Takes what a flag says, else asks, else takes the default."""

    def __init__(self, *, asks: bool, yes: bool) -> None:
        self.asks, self.yes = asks, yes

    def get(self, flag: str, given: str | None, question: str, default: str, read: Callable[[str], T]) -> T:
        """read: makes a value of the text; BadParameter where it can't, upon which it is asked again."""
        if given is not None or not self.asks:
            if given is None and not self.yes:
                raise typer.BadParameter(
                    "there is no terminal to ask: give it, or --yes for all defaults", param_hint=flag
                )
            try:
                return read(default if given is None else given)
            except typer.BadParameter as error:
                error.param_hint = flag
                raise
        answer: T = typer.prompt(question, default=default, value_proc=read, err=True)
        return answer


@command("init", Panel.RECIPES)
def init(
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe to write.")] = Path("recipe.yaml"),
    teacher: Annotated[
        str | None, typer.Option(help="Model that teaches: owner/name[@revision], ./folder, or a recipe.yaml.")
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Model that learns: as --teacher, or 'scratch' for random weights.")
    ] = None,
    languages: Annotated[str | None, typer.Option(help="Codes, as in id,th,vi; or 'all'.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="rows.jsonl (.csv, .tsv, .parquet; {language} in it), hub:owner/name[@revision], or 'builtin'."
        ),
    ] = None,
    hardware: Annotated[str | None, typer.Option(help="As in 8xH100-80G, 1xA10-24G, cpu-24G.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: from student and teacher.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", metavar="", help="Ask nothing: defaults for what is not given.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", metavar="", help="Replace a file that is there.")] = False,
) -> None:
    """Write a first recipe, commented and valid: asks for what no flag says."""
    _check_output(output, force=force)
    asker = _Asker(asks=sys.stdin.isatty() and not yes, yes=yes)
    if asker.asks:
        console.notice("A few questions; Enter takes what stands in brackets.", style="bold")
    folder = output.parent
    teaches = asker.get("--teacher", teacher, "Teacher (owner/name, ./folder or recipe.yaml)", TEACHER, _model(folder))
    learns = asker.get(
        "--student", student, "Student (the same, or 'scratch')", STUDENT, _model(folder, or_scratch=True)
    )
    codes = asker.get("--languages", languages, f"Languages ({' '.join(LANGUAGES)})", "id,th,vi", _languages)
    rows = asker.get(
        "--data",
        data,
        "Data (rows.jsonl, hub:owner/name, or 'builtin' to try things out)",
        BUILTIN,
        _rows(codes, folder),
    )
    hardware = asker.get("--hardware", hardware, "Hardware (8xH100-80G, 1xA10-24G, cpu-24G, …)", HARDWARE, _hardware)
    called = (
        asker.get("--name", name, "Name of the run", _name(teaches, learns), _run_name) if asker.asks or name else None
    )
    wishes = Wishes(
        called or _name(teaches, learns), teaches, learns, codes, rows, machine(hardware), schema=_schema(folder)
    )
    _write(output, wishes)


def _check_output(output: Path, *, force: bool) -> None:
    if output.suffix not in (".yaml", ".yml"):
        raise typer.BadParameter(f"a recipe's name ends in .yaml, got {str(output)!r}", param_hint="--output")
    if not output.parent.is_dir():
        raise typer.BadParameter(f"no such folder: {output.parent}", param_hint="--output")
    if output.is_dir() or (os.path.lexists(output) and not force):
        raise typer.BadParameter(f"{output} is there already; --force replaces it", param_hint="--output")


def _model(folder: Path, *, or_scratch: bool = False) -> Callable[[str], Model]:
    """Reads a model. Paths are given from where the user is, and written from where the recipe is."""

    def read(text: str) -> Model:
        from dudi_kit.recipe.paths import HUB_NAME

        text = text.strip()
        if or_scratch and text == SCRATCH:
            return Model(SCRATCH)
        if text.endswith((".yaml", ".yml")) or text.startswith(("./", "../", "/", "~")) or os.path.isdir(text):
            return Model(_existing(text, folder))
        hub, _, revision = text.partition("@")
        if not re.fullmatch(HUB_NAME, hub) or (("@" in text) and not revision):
            raise typer.BadParameter(f"{text!r} is neither owner/name, nor a folder, nor a recipe")
        return Model(hub, revision or None)

    return read


def _existing(text: str, folder: Path) -> str:
    """A path that is there, as the recipe has to write it."""
    if not os.path.exists(os.path.expanduser(text)):
        raise typer.BadParameter(f"no such file or folder: {text}")
    path = _from_recipe(text, folder)
    return path if path.startswith(("/", "..")) or path.endswith((".yaml", ".yml")) else f"./{path}"


def _from_recipe(text: str, folder: Path) -> str:
    path = os.path.expanduser(text)
    return os.path.abspath(path) if os.path.isabs(path) else os.path.relpath(path, folder)


def _languages(text: str) -> list[str]:
    words = [word for word in re.split(r"[\s,;]+", text.strip().lower()) if word]
    codes = list(dict.fromkeys(code for word in words for code in _codes(word)))
    if not codes:
        raise typer.BadParameter(f"name at least one of {' '.join(LANGUAGES)}")
    return codes


def _codes(word: str) -> list[str]:
    from dudi_kit.recipe.diagnostics import nearest

    if word in LANGUAGES:
        return [word]
    if word == "all":
        return [code for code in LANGUAGES if code != "en"]
    names = {language.name.lower(): code for code, language in LANGUAGES.items()}
    near = ALIASES.get(word) or names.get(word) or names.get(nearest(word, names) or "")
    hint = f"; did you mean {near}?" if near else f"; known: {' '.join(LANGUAGES)}"
    raise typer.BadParameter(f"unknown language {word!r}{hint}")


def _rows(codes: list[str], folder: Path) -> Callable[[str], Rows]:
    """Reads where the data is, and looks at its first row."""

    def read(text: str) -> Rows:
        text = text.strip()
        if text == BUILTIN:
            return _builtin(codes)
        if text.startswith("hub:"):
            return _hub(text.removeprefix("hub:"), codes)
        columns = _columns(text.replace("{language}", codes[0]))
        if len(codes) > 1 and columns.language is None and "{language}" not in text:
            raise typer.BadParameter(
                f"{text} has no column 'language', and there are {len(codes)} languages. Give one file for each, with "
                "{language} in its name, or add the column"
            )
        return Rows("path", _from_recipe(text, folder), columns=columns)

    return read


def _builtin(codes: list[str]) -> Rows:
    from dudi_kit.data.builtin import LANGUAGES as SHIPPED

    if missing := [code for code in codes if code not in SHIPPED]:
        raise typer.BadParameter(
            f"the built-in corpus has no {', '.join(missing)}, only {' '.join(SHIPPED)}. Bring data of your own"
        )
    return Rows(BUILTIN)


def _hub(text: str, codes: list[str]) -> Rows:
    from dudi_kit.recipe.paths import HUB_NAME

    name, _, revision = text.partition("@")
    if not re.fullmatch(HUB_NAME, name):
        raise typer.BadParameter(f"{name!r} is no dataset of the hub (owner/name)")
    columns = Columns(language="language") if len(codes) > 1 else Columns()
    return Rows("hub", name, revision or None, columns)


def _columns(path: str) -> Columns:
    """The columns of a data file, by their usual names."""
    from dudi_kit.data.sources import file_source
    from dudi_kit.errors import DataError

    try:
        row = next(file_source(os.path.expanduser(path)).rows(), None)
    except DataError as error:
        raise typer.BadParameter(str(error)) from error
    if row is None or row.fault is not None:
        raise typer.BadParameter(f"{path}: its first row can't be read{f': {row.fault}' if row else ', it is empty'}")
    found = {what: next((name for name in names if name in row.values), None) for what, names in COLUMNS.items()}
    if found["messages"] is None and not (found["prompt"] and found["response"]):
        has = ", ".join(map(repr, list(row.values)[:12]))
        raise typer.BadParameter(
            f"{path} has the columns {has}, and none that is known as prompt and response ('messages' for chats). "
            "Rename two, or write the recipe's data.train by hand: a template can make both of any columns"
        )
    return Columns(**found)


def _hardware(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise typer.BadParameter("a name such as 8xH100-80G or cpu-24G is needed")
    return text.strip()


def _run_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", text):
        raise typer.BadParameter("letters, digits, dots, dashes and underscores are needed, at most 80")
    return text


def _name(teacher: Model, student: Model) -> str:
    """`qwen2.5-0.5b-from-qwen2.5-3b-instruct`."""

    def short(model: Model) -> str:
        last = Path(model.name).stem if model.is_recipe else Path(model.name).name
        return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip(".-_") or "model"

    return f"{short(student)}-from-{short(teacher)}"[:80].rstrip(".-_")


def _schema(folder: Path) -> str:
    """The schema's path from the recipe: that of a clone of dudi-kit around it, else one beside it."""
    here = folder.resolve()
    for above in (here, *here.parents):
        if (above / "schemas" / SCHEMA).is_file():
            return os.path.relpath(above / "schemas" / SCHEMA, here)
    return SCHEMA


def _write(output: Path, wishes: Wishes) -> None:
    from dudi_kit.plan.layout import write_text
    from dudi_kit.recipe.diagnostics import errors
    from dudi_kit.recipe.load import check_recipe
    from dudi_kit.recipe.publish import schema_text

    write_text(output, draft(wishes))
    if wishes.schema == SCHEMA:
        write_text(output.parent / SCHEMA, schema_text())
    findings = check_recipe(output).findings
    for finding in findings:
        console.notice(str(finding))
    assert not errors(findings), "a recipe that init writes is valid"
    console.say(
        f"wrote {output}" + (f" and {output.parent / SCHEMA}, for your editor" if wishes.schema == SCHEMA else "")
    )
    processes = f" --processes {wishes.machine.devices}" if wishes.machine.devices > 1 else ""
    console.notice(f"next: dudi-kit plan {output}, then dudi-kit run {output}{processes}", style="bold")
