"""The command line. It parses, prints and sets the exit code; the work is `dudi_kit.pipeline`'s.

A module for each family of commands, over the shell that all share (`app`). Heavy imports stay inside the functions:
`--help` and `validate` answer at once and never import torch.
"""

import io
import sys

from dudi_kit.cli import cache, compare, evaluate, look, recipes, runs, start, tasks, verbalize, verify  # noqa: F401 – importing them registers their commands
from dudi_kit.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our characters is no reason to stop
    app()
