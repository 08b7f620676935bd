"""The shell of every command: overrides, exit codes, the log of a bug of ours."""

import errno
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from dudi_kit import __version__, console
from dudi_kit.errors import DudiError, Exit

EPILOG = (
    "Exit codes: 0 done · 1 the recipe or its data is wrong · 2 the command line is wrong · "
    "3 a bug of ours, with a log file · 4 the machine lacks something · 130 interrupted"
)
OVERRIDE_HELP = "Change one value of the recipe, as in --set training.seed=1; --training.seed=1 is the same."
DOTTED_OPTION = re.compile(r"--(?P<path>[A-Za-z_][\w-]*(?:\.[^=\s]+)+)(?:=(?P<value>.*))?", re.DOTALL)
PLAIN_OPTION = re.compile(r"--(?P<path>[a-z_]+)=.*", re.DOTALL)


class RecipeCommand(TyperCommand):
    """A command that takes a recipe: `--training.seed=1` overrides its values, and errors become exit codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Turn dotted options, and `--name=x` for keys of the recipe, into `--set`."""
        own = {option for parameter in self.params for option in parameter.opts}
        end = args.index("--") if "--" in args else len(args)
        options = [word for arg in args[:end] for word in _as_set(arg, own)]
        return super().parse_args(ctx, [*options, *args[end:]])

    def get_help_option(self, ctx: Any) -> Any:
        """`--help`, which is no value to give."""
        return _without_type(super().get_help_option(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; every way to fail has its exit code."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.TyperException, BrokenPipeError):
            raise
        except typer.Abort:  # Ctrl-C or Ctrl-D at a question
            console.fail("interrupted")
            raise typer.Exit(Exit.INTERRUPTED) from None
        except (Exception, KeyboardInterrupt) as error:
            text, code = _failure(error)
            console.fail(text)
            raise typer.Exit(code) from None


class Panel(StrEnum):
    """The families of commands in --help, in this order."""

    RECIPES = "Recipes"
    RUNS = "Runs"
    LOOK = "Look before you train"
    MACHINE = "Machine"


class Commands(TyperGroup):
    """All commands, family by family."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the panels; within one, in the order in which they were registered."""
        panels = [panel.value for panel in Panel]
        commands: Any = self.commands  # typer's own, which know their panel
        return sorted(super().list_commands(ctx), key=lambda name: panels.index(commands[name].rich_help_panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """A command of two words, such as `evaluate verify`, goes before one of its first word."""
        two = " ".join(args[:2])
        return (two, self.commands[two], args[2:]) if two in self.commands else super().resolve_command(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        """`--help`, which is no value to give."""
        return _without_type(super().get_help_option(ctx))


app = typer.Typer(
    name="dudi-kit",
    cls=Commands,
    help="Distil a large teacher into a small student for Southeast Asian languages, from one YAML recipe.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(name: str, panel: Panel = Panel.RUNS) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command that takes overrides."""
    return app.command(name, cls=RecipeCommand, epilog=EPILOG, rich_help_panel=panel.value)


RECIPE_HELP = "Recipe: a YAML file, https://…/x.yaml, or hub:owner/name/x.yaml@revision."
Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE_HELP, show_default=False)]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=OVERRIDE_HELP)]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version and exit.")] = False,
) -> None:
    if version:
        console.say(f"dudi-kit {__version__}")
        raise typer.Exit(Exit.OK)


def parse_overrides(settings: Sequence[str] | None) -> list[tuple[str, str]]:
    """`training.seed=1` → ("training.seed", "1")."""
    pairs = [setting.partition("=") for setting in settings or ()]
    for path, equals, _ in pairs:
        if not equals or not path.strip():
            raise typer.BadParameter(f"{path!r} is not KEY=VALUE, as in training.seed=1", param_hint="--set")
    return [(path.strip(), value) for path, _, value in pairs]


def _without_type(option: Any) -> Any:
    if option is not None:
        option.metavar = ""
    return option


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
