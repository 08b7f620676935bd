"""Rules about what of a run is watched: `training.gradient_norms_every` and `output.trackers`."""

import re
from collections.abc import Iterator

from dudi_kit.recipe.checks.complaint import Complaint, Rule
from dudi_kit.recipe.paths import HUB_NAME
from dudi_kit.recipe.schema import Recipe

EVERY = ("training", "gradient_norms_every")


def gradients_are_logged(recipe: Recipe) -> Iterator[Complaint]:
    """A measurement stands in the line of its own step."""
    every, logged = recipe.training.gradient_norms_every, recipe.training.log_every
    if every is not None and every % logged:
        message = f"{every} is not a multiple of log_every, which is {logged}: no line would have the measurement"
        hint = f"{-(-every // logged) * logged} would be one"
        yield Complaint(EVERY, "not-divisible", message, hint, (("training", "log_every"),))


def every_signal_has_a_gradient(recipe: Recipe) -> Iterator[Complaint]:
    """With samples in every k-th step only, none are drawn in the last step of a line, which is the one measured."""
    if recipe.training.gradient_norms_every is not None and recipe.rollouts.every > 1:
        message = f"no samples are drawn in the steps that would be measured: rollouts.every is {recipe.rollouts.every}"
        yield Complaint(EVERY, "not-together", message, "remove it, or set rollouts.every: 1", (("rollouts", "every"),))


def space_is_named(recipe: Recipe) -> Iterator[Complaint]:
    """`owner/name`, never an address of someone's server."""
    trackio = recipe.output.trackers.trackio
    if trackio is not None and trackio.space is not None:
        if re.fullmatch(HUB_NAME, trackio.space) and "/" in trackio.space:
            return
        message = f"a Space is named owner/name, got {trackio.space!r}"
        yield Complaint(("output", "trackers", "trackio", "space"), "bad-model-name", message, "as in alice/curves")


RULES: tuple[Rule, ...] = (gradients_are_logged, every_signal_has_a_gradient, space_is_named)
