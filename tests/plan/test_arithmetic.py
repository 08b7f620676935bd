"""batch_size = processes × micro_batch_size × accumulation, and how many steps."""

from typing import Any

import pytest

from dudi_kit.errors import RecipeError
from dudi_kit.plan.arithmetic import Arithmetic, arithmetic
from dudi_kit.plan.engine import MOST_IN_A_BUCKET, NEVER, bucket_of, ds_config, launch_command
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.training import Training
from tests.small import STUDENT, changed


def split(processes: int = 1, rows: int = 100, **training: object) -> Arithmetic:
    return arithmetic(Training.model_validate(training), rows_per_epoch=rows, processes=processes)


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "expected"),
    [
        (16, None, 1, (16, 1)),
        (16, None, 2, (8, 1)),
        (16, 4, 1, (4, 4)),
        (16, 4, 2, (4, 2)),
        (16, 2, 4, (2, 2)),
        (1, None, 1, (1, 1)),
    ],
)
def test_the_batch_is_split_by_hand(batch: int, micro: int | None, processes: int, expected: tuple[int, int]) -> None:
    made = split(processes, batch_size=batch, micro_batch_size=micro)
    assert (made.micro_batch_size, made.accumulation) == expected
    assert made.processes * made.micro_batch_size * made.accumulation == made.batch_size == batch


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "nearest"),
    [(10, 4, 1, "8 or 12"), (16, 3, 2, "12 or 18"), (2, None, 3, "3"), (4, 8, 1, "8"), (16, None, 3, "15 or 30")],
)
def test_a_batch_that_can_not_be_split_names_the_nearest_that_can(
    batch: int, micro: int | None, processes: int, nearest: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        split(processes, batch_size=batch, micro_batch_size=micro)
    said = str(caught.value)
    assert said.startswith(f"training.batch_size: {batch} rows can't be split into {processes} processes × ")
    assert said.endswith(f"the nearest size that can is {nearest}.")


def test_the_nearest_sizes_can_indeed_be_split() -> None:
    assert split(2, batch_size=12, micro_batch_size=3).accumulation == 2
    assert split(2, batch_size=18, micro_batch_size=3).accumulation == 3
    assert split(3, batch_size=15).accumulation == 1


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"steps": 7}, 7),
        ({"epochs": 1}, 13),
        ({"epochs": 2}, 25),
        ({"epochs": 0.1}, 2),
        ({"epochs": 0.01}, 1),
        ({}, 13),
    ],
)
def test_steps_come_from_epochs_rounded_up_and_one_epoch_is_the_default(given: dict[str, float], steps: int) -> None:
    assert split(batch_size=8, **given).steps == steps


def test_deepspeeds_numbers_are_the_plans() -> None:
    settings = {"precision": "bf16", "batch_size": 24, "micro_batch_size": 3, "max_grad_norm": 0.5}
    recipe = Recipe.model_validate(changed(STUDENT, training=settings, deepspeed={"stage": 2}))
    batches = arithmetic(recipe.training, rows_per_epoch=100, processes=2)
    config = ds_config(recipe, batches, parameters=1000)
    micro, accumulation = config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]
    assert (config["train_batch_size"], micro, accumulation) == (24, 3, 4)
    assert config["train_batch_size"] == 2 * micro * accumulation
    assert config["gradient_clipping"] == 0.5
    assert config["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 1000, "allgather_bucket_size": 1000}
    assert config["bf16"] == {"enabled": True}
    assert config["data_types"]["grad_accum_dtype"] == "fp32"
    assert config["steps_per_print"] == NEVER


def test_fp32_switches_bf16_off() -> None:
    assert compiled()["bf16"] == {"enabled": False}


def compiled(parameters: int = 1000, **deepspeed: object) -> dict[str, Any]:
    recipe = Recipe.model_validate(changed(STUDENT, deepspeed=deepspeed))
    return ds_config(recipe, arithmetic(recipe.training, rows_per_epoch=8, processes=1), parameters)


def test_a_large_student_is_reduced_and_gathered_in_parts() -> None:
    zero = compiled(10**9, stage=3)["zero_optimization"]
    assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == MOST_IN_A_BUCKET
    assert zero["stage3_max_live_parameters"] == zero["stage3_max_reuse_distance"] == 2 * MOST_IN_A_BUCKET


def test_what_is_offloaded_goes_where_the_recipe_says() -> None:
    offload = {"optimizer": "nvme", "parameters": "cpu", "nvme_path": "/fast"}
    zero = compiled(stage=3, offload=offload)["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "nvme", "nvme_path": "/fast"}
    assert zero["offload_param"] == {"device": "cpu"}
    assert "offload_optimizer" not in compiled(stage=3)["zero_optimization"]


def test_extra_keys_join_what_is_compiled() -> None:
    extra = {"zero_optimization": {"reduce_bucket_size": 7, "offload_optimizer": {"pin_memory": False}}, "aio": {}}
    config = compiled(stage=2, offload={"optimizer": "cpu"}, extra=extra)
    assert config["zero_optimization"] == {
        "stage": 2,
        "reduce_bucket_size": 7,
        "allgather_bucket_size": 1000,
        "offload_optimizer": {"device": "cpu", "pin_memory": False},
    }
    assert config["aio"] == {}
    assert config["train_batch_size"] == 4
    assert bucket_of(config) == 7
    assert bucket_of(compiled()) == MOST_IN_A_BUCKET


def test_one_process_is_started_directly_and_several_by_torchrun() -> None:
    assert launch_command(1, "/out/x", resume=False) == ["-m", "dudi_kit.pipeline.worker", "/out/x"]
    assert launch_command(1, "/out/x", resume=True) == ["-m", "dudi_kit.pipeline.worker", "/out/x", "--resume"]
    several = launch_command(4, "/out/x", resume=True)
    assert several[:4] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    assert several[4:] == ["-m", "dudi_kit.pipeline.worker", "/out/x", "--resume"]
