"""Can the models of a run read rows that share a line? Told before any weight is loaded."""

from collections.abc import Mapping

from transformers import PreTrainedConfig

from dudi_kit.errors import RecipeError
from dudi_kit.models.packing import PACKS
from dudi_kit.recipe.schema import Recipe


def check_packing(recipe: Recipe, configs: Mapping[str, PreTrainedConfig | None]) -> None:
    """Where `training.packing` is set, every model is one that keeps rows apart. configs: by who it is."""
    if not recipe.training.packing:
        return
    for who, config in configs.items():
        if config is not None and config.model_type not in PACKS:
            raise RecipeError(
                f"training.packing: the {who} is a {config.model_type!r}, of which it is not known that rows in one "
                f"line do not see each other. Set it to false, or choose one of: {', '.join(sorted(PACKS))}."
            )
