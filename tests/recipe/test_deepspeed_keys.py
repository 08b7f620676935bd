"""The table of DeepSpeed's keys, held against the installed DeepSpeed."""

from typing import Any

import pytest

from dudi_kit.recipe.deepspeed_keys import FREE, OURS, OWNERS, SECTIONS

KNOWN = {*OWNERS, *OURS, *FREE, *SECTIONS}


class Recorder(dict[str, Any]):
    """A configuration that remembers what it is asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


@pytest.fixture(scope="module")
def zero_config(request: pytest.FixtureRequest) -> Any:
    from dudi_kit.noise import hush

    hush()
    from deepspeed.runtime.zero import config

    return config


def spellings(model: Any) -> set[str]:
    """What a section of DeepSpeed's configuration may be written with."""
    return {field.alias or name for name, field in model.model_fields.items()}


def test_every_key_that_deepspeed_looks_for_is_in_the_table() -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    recorder = Recorder({"train_batch_size": 1})
    DeepSpeedConfig(recorder)
    assert {"fp16", "zero_optimization", "steps_per_print"} < recorder.asked
    assert recorder.asked <= KNOWN, recorder.asked - KNOWN


def test_every_key_of_zero_is_in_the_table_and_no_other(zero_config: Any) -> None:
    from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadOptimizerConfig as Optimizer
    from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadParamConfig as Parameters

    sections = {
        "zero_optimization": zero_config.DeepSpeedZeroConfig,
        "zero_optimization.offload_optimizer": Optimizer,
        "zero_optimization.offload_param": Parameters,
    }
    for section, model in sections.items():
        ours = {key.removeprefix(f"{section}.") for key in KNOWN if key.startswith(f"{section}.")}
        assert {key for key in ours if "." not in key} == spellings(model) | SURPLUS.get(section, set())


SURPLUS = {"zero_optimization": {"gather_16bit_weights_on_model_save"}}
"""Names without the prefix that DeepSpeed's documents write, too."""


def test_no_key_has_two_owners() -> None:
    assert not OWNERS.keys() & OURS.keys()
    assert not FREE & (OWNERS.keys() | OURS.keys())


def test_every_owner_is_a_field_of_the_recipe() -> None:
    from dudi_kit.recipe.schema import Recipe

    for key, owner in OWNERS.items():
        section: Any = Recipe
        for name in owner.split("."):
            if section is dict:
                break
            section = section.model_fields[name].annotation
            section = dict if getattr(section, "__origin__", None) is dict else section
        assert section is not None, key
