"""The command line. It parses, prints and sets the exit code; the work is `dudi_kit.pipeline`'s.

Heavy imports stay inside the functions: `--help` and `validate` answer at once and never import torch.
"""

import errno
import io
import json
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from dudi_kit import __version__, console
from dudi_kit.errors import DudiError, Exit

if TYPE_CHECKING:
    from dudi_kit.recipe.load import LoadedRecipe

EPILOG = (
    "Exit codes: 0 done · 1 the recipe or its data is wrong · 2 the command line is wrong · "
    "3 a bug of ours, with a log file · 4 the machine lacks something · 130 interrupted"
)
OVERRIDE_HELP = "Change one value of the recipe, as in --set training.seed=1; --training.seed=1 is the same."
DOTTED_OPTION = re.compile(r"--(?P<path>[A-Za-z_][\w-]*(?:\.[^=\s]+)+)(?:=(?P<value>.*))?", re.DOTALL)
PLAIN_OPTION = re.compile(r"--(?P<path>[a-z_]+)=.*", re.DOTALL)


class Format(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


class RecipeCommand(TyperCommand):
    """A command that takes a recipe: `--training.seed=1` overrides its values, and errors become exit codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Turn dotted options, and `--name=x` for keys of the recipe, into `--set`."""
        own = {option for parameter in self.params for option in parameter.opts}
        end = args.index("--") if "--" in args else len(args)
        options = [word for arg in args[:end] for word in _as_set(arg, own)]
        return super().parse_args(ctx, [*options, *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        """Run the command; every way to fail has its exit code."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            text, code = _failure(error)
            console.fail(text)
            raise typer.Exit(code) from None


app = typer.Typer(
    name="dudi-kit",
    help="Distil a large teacher into a small student for Southeast Asian languages, from one YAML recipe.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command that takes overrides."""
    return app.command(name, cls=RecipeCommand, epilog=EPILOG)


Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file (YAML).", show_default=False)]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=OVERRIDE_HELP)]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder of the run directories, instead of the recipe's output.folder."),
]
Processes = Annotated[
    int, typer.Option("--processes", "-p", min=1, help="Training processes, usually one for each GPU.")
]
Resume = Annotated[
    bool, typer.Option("--resume", metavar="", help="Go on from the last checkpoint of this very recipe.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Delete the run directory first, if it is there.")
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version and exit.")] = False,
) -> None:
    if version:
        console.say(f"dudi-kit {__version__}")
        raise typer.Exit(Exit.OK)


@command("validate")
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recipe files (YAML).", show_default=False)],
    settings: Settings = None,
    form: Annotated[
        Format, typer.Option("--format", help="text for people, github for annotations in a workflow.")
    ] = Format.TEXT,
) -> None:
    """Check recipes without network, weights or data: every mistake at once, with its place and a fix.

    A file that is not there is a finding like any other (exit code 1).
    """
    from dudi_kit.recipe.diagnostics import errors
    from dudi_kit.recipe.load import check_recipe

    overrides = parse_overrides(settings)
    results = [(file, check_recipe(file, overrides).findings) for file in files]
    if form is Format.JSON:
        print(json.dumps([f.as_json() for _, findings in results for f in findings], indent=2, ensure_ascii=False))  # noqa: T201
    for file, findings in results if form is not Format.JSON else ():
        _print_findings(file, findings, form)
    if any(errors(findings) for _, findings in results):
        raise typer.Exit(Exit.INVALID)


@command("schema")
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from dudi_kit.recipe.publish import schema_text

    print(schema_text(), end="")  # noqa: T201


@command("run")
def run(
    recipe: Recipe,
    settings: Settings = None,
    output: Output = None,
    processes: Processes = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Do all of it: plan, build teachers and cold starts that are missing, train, evaluate, report."""
    loaded = _loaded(recipe, settings)
    _pipeline().run(loaded, output=output, processes=processes, resume=resume, overwrite=overwrite)


@command("train")
def train(
    recipe: Recipe,
    settings: Settings = None,
    output: Output = None,
    processes: Processes = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train the student (and what it needs first), without evaluating it."""
    loaded = _loaded(recipe, settings)
    _pipeline().train(loaded, output=output, processes=processes, resume=resume, overwrite=overwrite)


@command("evaluate")
def evaluate(recipe: Recipe, settings: Settings = None, output: Output = None) -> None:
    """Score a trained student beside its teacher and its cold start: bits per byte, and the recipe's tasks."""
    loaded = _loaded(recipe, settings)
    _pipeline().evaluate(loaded, output=output)


@command("report")
def report(recipe: Recipe, settings: Settings = None, output: Output = None) -> None:
    """Write report.html and print the table, from what training and evaluation left behind."""
    loaded = _loaded(recipe, settings)
    _pipeline().report(loaded, output=output)


@command("plan")
def plan(recipe: Recipe, settings: Settings = None, output: Output = None, processes: Processes = 1) -> None:
    """Decide everything that can be decided before weights are loaded, and show it; train nothing."""
    loaded = _loaded(recipe, settings)
    _pipeline().plan(loaded, output=output, processes=processes)


def _loaded(recipe: Path, settings: Sequence[str] | None) -> "LoadedRecipe":
    """The checked recipe; a mistake in it is told at once, before torch is imported."""
    from dudi_kit.recipe.load import load_recipe

    loaded = load_recipe(recipe, parse_overrides(settings))
    for warning in loaded.warnings:
        console.notice(str(warning))
    return loaded


def _pipeline() -> ModuleType:
    """The stations of a run. Imported late, since torch takes seconds, and with the libraries told to be quiet."""
    from dudi_kit.noise import hush

    hush()
    from dudi_kit import pipeline

    return pipeline


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our characters is no reason to stop
    app()


def parse_overrides(settings: Sequence[str] | None) -> list[tuple[str, str]]:
    """`training.seed=1` → ("training.seed", "1")."""
    pairs = [setting.partition("=") for setting in settings or ()]
    for path, equals, _ in pairs:
        if not equals or not path.strip():
            raise typer.BadParameter(f"{path!r} is not KEY=VALUE, as in training.seed=1", param_hint="--set")
    return [(path.strip(), value) for path, _, value in pairs]


def _as_set(arg: str, own: set[str]) -> list[str]:
    dotted = DOTTED_OPTION.fullmatch(arg)
    if dotted and dotted["value"] is None:
        raise typer.BadParameter(f"write {arg}=VALUE, in one word", param_hint=arg)
    plain = PLAIN_OPTION.fullmatch(arg)
    is_key = plain and f"--{plain['path']}" not in own and plain["path"] in _recipe_keys()
    return ["--set", arg.removeprefix("--")] if dotted or is_key else [arg]


def _recipe_keys() -> set[str]:
    from dudi_kit.recipe.schema import Recipe

    return set(Recipe.model_fields)


def _print_findings(file: Path, findings: Sequence[Any], form: Format) -> None:
    from dudi_kit.recipe.diagnostics import errors

    for finding in findings:
        if form is Format.GITHUB:
            print(finding.as_github())  # noqa: T201
        else:
            _print_finding(finding)
    wrong, warned = len(errors(findings)), len(findings) - len(errors(findings))
    notes = f" ({warned} warning{'s' * (warned > 1)})" if warned else ""
    if wrong:
        console.notice(f"✗ {file}: {wrong} error{'s' * (wrong > 1)}{notes}", style="bold red")
    else:
        console.notice(f"✓ {file}{notes}", style="bold green")


def _print_finding(finding: Any) -> None:
    style = "red" if finding.severity == "error" else "yellow"
    for number, line in enumerate(finding.render().split("\n")):
        console.say(line, style="" if number == 1 else style)  # the recipe's own line stays as it is


def _failure(error: BaseException) -> tuple[str, Exit]:
    """What to tell about an exception, and the exit code."""
    if isinstance(error, DudiError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", Exit.INTERRUPTED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left for {error.filename or 'a file'}. Free some, or choose another disk.", Exit.ENVIRONMENT
    log = _write_log("".join(traceback.format_exception(error)))
    return f"this is a bug of dudi-kit, not yours; please report it with the log {log}", Exit.BUG


def _write_log(text: str) -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="dudi-kit-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(f"dudi-kit {__version__}, Python {sys.version}\n{' '.join(sys.argv)}\n\n{text}")
    return Path(file.name)


if __name__ == "__main__":
    main()
