"""`output`: where the run directory goes, and who else is told of the metrics."""

from typing import Literal

from dudi_kit.recipe.schema.base import Name, Strict, Text


class WeightsAndBiases(Strict):
    """Curves at Weights & Biases, under the account that this machine is logged in to. A resumed run goes on in its
    curves."""

    project: Name = "dudi-kit"
    """Where the run appears."""

    entity: Name | None = None
    """User or team; default: that of the account."""

    mode: Literal["online", "offline"] = "online"
    """`offline`: written to `logs/wandb` of the run directory only, for `wandb sync`."""


class Trackio(Strict):
    """Curves in Trackio: in `logs/trackio` of the run directory, or in a Space on the hub."""

    project: Name = "dudi-kit"
    """Where the run appears."""

    space: Text | None = None
    """`owner/name` of a Space that is sent the metrics, under the account that this machine is logged in to; default:
    nothing is sent."""


class Trackers(Strict):
    """Who shows the metrics besides metrics.jsonl, which has them first. A tracker that fails never stops a run."""

    tensorboard: Literal["auto", "on", "off"] = "auto"
    """Event files in `logs/tensorboard` of the run directory. `auto`: where the package is installed."""

    wandb: WeightsAndBiases | None = None
    """Weights & Biases; default: not told."""

    trackio: Trackio | None = None
    """Trackio; default: not told."""


class Output(Strict):
    """Where the run directory goes; nothing is written anywhere else."""

    folder: Text = "outputs"
    """Relative to where the command is called; the run directory is `folder/name`. `--output` may name any other."""

    trackers: Trackers = Trackers()
