"""Which trackers a run has, and what leaves the machine through them; nothing is imported or sent here."""

import os
from collections.abc import Iterator
from importlib.util import find_spec

from dudi_kit.errors import EnvironmentLack
from dudi_kit.recipe.schema.output import Trackers

SENT = "every line of metrics.jsonl, and the sections signals, rollouts and training of the recipe"


def wanted_trackers(trackers: Trackers) -> list[str]:
    """Those that the recipe names, and TensorBoard where it is installed and not turned off.

    EnvironmentLack where a package that the recipe names is missing.
    """
    named = {
        "tensorboard": trackers.tensorboard == "on",
        "wandb": trackers.wandb is not None,
        "trackio": trackers.trackio is not None,
    }
    for name, is_named in named.items():
        if is_named and find_spec(name) is None:
            raise EnvironmentLack(
                f"output.trackers.{name}: the package {name} is not installed. Install it (pip install "
                "'dudi-kit[trackers]'), or take it out of the recipe; metrics.jsonl has the metrics without it."
            )
    auto = {"tensorboard"} if trackers.tensorboard == "auto" and find_spec("tensorboard") else set()
    return [name for name, is_named in named.items() if is_named or name in auto]


def tracker_notices(trackers: Trackers) -> Iterator[str]:
    """What is sent to whom, and the tracker that is left out."""
    if "tensorboard" not in wanted_trackers(trackers) and trackers.tensorboard == "auto":
        yield "output.trackers: no TensorBoard curves, the package tensorboard is not installed"
    if trackers.wandb is not None and trackers.wandb.mode == "online":
        where = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        owner = f"{trackers.wandb.entity}/" if trackers.wandb.entity else ""
        yield f"output.trackers.wandb sends {SENT}, to {where}, project {owner}{trackers.wandb.project}"
    if trackers.trackio is not None and trackers.trackio.space is not None:
        yield (
            f"output.trackers.trackio sends {SENT}, to the Space {trackers.trackio.space} on the hub, project "
            f"{trackers.trackio.project}"
        )
