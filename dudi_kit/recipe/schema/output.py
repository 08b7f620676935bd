"""`output`: where the run directory goes."""

from dudi_kit.recipe.schema.base import Strict, Text


class Output(Strict):
    """Where the run directory goes; nothing is written anywhere else."""

    folder: Text = "outputs"
    """Relative to where the command is called; the run directory is `folder/name`. `--output` may name any other."""
