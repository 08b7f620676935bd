"""Everything that a user can cause, as one exception tree; each knows the exit code of the command line.

Rule of the house: a `DudiError` carries the value, the rule and the fix in its text and is printed without a traceback.
Whatever else escapes is our bug: the command line logs it with its traceback and exits with 3.
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `dudi-kit`, documented in the README."""

    OK = 0
    INVALID = 1
    """The recipe, or the data that it names, is wrong."""
    USAGE = 2
    """The command line is wrong (typer's own code)."""
    BUG = 3
    """Our fault; a log file is named."""
    ENVIRONMENT = 4
    """The machine lacks something: disk, memory, a package, a file that was there before."""
    INTERRUPTED = 130


class DudiError(Exception):
    """Base of all that a user can cause and mend."""

    exit_code: Exit = Exit.INVALID


class UsageError(DudiError, ValueError):
    """The command line names something that does not exist."""

    exit_code = Exit.USAGE


class RecipeError(DudiError, ValueError):
    """The recipe breaks a rule; the text names file, line, value, rule and fix."""


class DataError(DudiError, ValueError):
    """A data file or row is not what the recipe says; the text names file, row, column and what was expected."""


class ModelError(DudiError, ValueError):
    """A model or tokenizer can't be used as the recipe asks."""


class VocabularyMismatch(ModelError):
    """Teacher and student do not speak the same pieces, and the mapping asked for needs them to."""


class RunDirectoryError(DudiError, ValueError):
    """The run directory holds something else than this recipe's run, or a part of it is damaged."""


class LockMismatch(DudiError, ValueError):
    """`--frozen`: there is no lock, or something is not as it says; the text names every difference."""


class EnvironmentLack(DudiError, RuntimeError):
    """The machine can't do it: no space, no package, no such device."""

    exit_code = Exit.ENVIRONMENT


class HubUnreachable(EnvironmentLack):
    """The hub can't be reached, and the local cache does not hold what was asked for."""


class WorkerFailed(DudiError, RuntimeError):
    """A training process ended early; the text names its rank and its reason."""

    exit_code = Exit.ENVIRONMENT


class Interrupted(DudiError, KeyboardInterrupt):
    """The user stopped the run; what was saved is named."""

    exit_code = Exit.INTERRUPTED


class TrainingFailed(DudiError, ArithmeticError):
    """Training can't go on: the loss is no number any more. The text names step, signal and language."""
