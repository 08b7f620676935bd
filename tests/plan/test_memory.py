"""The estimate, held against numbers by hand, against what torch really keeps, and against a real run."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from dudi_kit.data.batches import Sharing
from dudi_kit.models.reading import FEW
from dudi_kit.plan.budget import _changes
from dudi_kit.plan.engine import MOST_IN_A_BUCKET
from dudi_kit.plan.engine_memory import Engine, engine_of
from dudi_kit.plan.job import Inputs, Job
from dudi_kit.plan.loss_memory import chunks, loss_bytes, teacher_predictions
from dudi_kit.plan.memory import (
    activations,
    bytes_of,
    estimate,
    layer_bytes,
    mask_bytes,
    needs_mask,
    rollout_bytes,
    teacher_bytes,
    teacher_pass,
)
from dudi_kit.plan.shape import ModelShape, shape_of
from dudi_kit.signals.chunks import CHUNK_BYTES, HALF_CHUNK_BYTES, STRIP_ELEMENTS

P = 1000
SHAPE = ModelShape(
    parameters=P, vocabulary=50, hidden=8, layers=2, query=8, key_value=4, intermediate=16, norms=2, tied=True
)
INPUTS = Inputs(
    rows=2, prompt=16, response=32, row=48, teacher_prompt=48, teacher_row=80,
    sampled_rows=4, sampled_prompt=16,
)  # fmt: skip
JOB = Job(
    student=SHAPE,
    teacher=replace(SHAPE, parameters=10 * P, vocabulary=60),
    teacher_dtype="bf16",
    quantization="none",
    precision="fp32",
    stage=0,
    processes=1,
    accumulation=1,
    signals=frozenset({"sequence", "off_policy", "on_policy"}),
    new_tokens=32,
    inputs=(INPUTS,),
    on_cpu=False,
)


# Weights, gradients and optimizer, by hand


def test_fp32_without_zero_is_16_bytes_a_parameter_and_a_copy_for_the_reduction() -> None:
    assert engine_of(JOB) == Engine(
        weights=4 * P, optimizer=8 * P, held=0, gathered=0, full=4 * P, bucket=0, update=4 * P
    )


def test_a_second_micro_batch_finds_the_gradients_of_the_first() -> None:
    assert engine_of(replace(JOB, accumulation=2)).gathered == 4 * P


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("processes", [1, 4])
def test_bf16_keeps_whole_gradients_twice_and_a_share_of_the_optimizer(stage: int, processes: int) -> None:
    engine = engine_of(replace(JOB, precision="bf16", stage=stage, processes=processes))
    assert (engine.weights, engine.optimizer) == (2 * P, (4 + 8) * P // processes)
    assert engine.held == engine.gathered == engine.full == (4 + 2) * P


def test_stage_2_keeps_a_share_of_the_gradients_and_a_whole_bucket() -> None:
    engine = engine_of(replace(JOB, precision="bf16", stage=2, processes=4))
    assert (engine.full, engine.optimizer, engine.bucket) == (4 * P // 4, 12 * P // 4, 2 * MOST_IN_A_BUCKET)
    assert engine_of(replace(JOB, precision="bf16", stage=2, processes=4, on_cpu=True)).bucket == 2 * P


def test_zero_in_fp32_holds_its_share_of_the_weights_a_second_time() -> None:
    assert engine_of(replace(JOB, stage=2, processes=2)).optimizer == (4 + 8) * P // 2


def test_stage_3_holds_a_share_of_the_weights_and_two_buckets_that_are_gathered() -> None:
    third = replace(JOB, precision="bf16", stage=3, processes=4, bucket=300)
    assert engine_of(third).weights == 2 * P // 4 + 2 * 600
    assert engine_of(replace(third, bucket=10**6)).weights == 2 * P // 4 + 2 * P
    sampling = estimate(third).phases["sample"]
    assert sampling["weights"] == 2 * P // 4 + 2 * P, "once, whole, to sample"
    assert (sampling["gradients"], sampling["engine"]) == (4 * P // 4, 2 * 300), "DeepSpeed allocates these once"


@pytest.mark.parametrize(("stage", "processes"), [(1, 1), (2, 4), (3, 4)])
def test_an_offloaded_optimizer_takes_no_memory_of_the_gpu(stage: int, processes: int) -> None:
    job = replace(JOB, precision="bf16", stage=stage, processes=processes, offloaded=frozenset({"optimizer"}))
    engine = engine_of(job)
    assert (engine.optimizer, engine.held) == (0, 0)
    assert engine.host == (4 + 8 + 4) * P // processes, "master weights, moments, gradients"
    assert engine_of(replace(job, on_cpu=True)).optimizer == (4 + 8) * P // processes, "there is one memory"


def test_offloaded_weights_leave_what_is_gathered() -> None:
    job = replace(JOB, precision="bf16", stage=3, processes=4, bucket=300, offloaded=frozenset({"parameters"}))
    assert (engine_of(job).weights, engine_of(job).host) == (2 * 600, 2 * P // 4)
    assert engine_of(replace(job, stage=2)).host == 0, "only stage 3 can"


def test_moments_of_8_bits_take_a_quarter() -> None:
    assert engine_of(replace(JOB, optimizer="adamw_8bit")).optimizer == 2 * P


# The teacher, by hand


@pytest.mark.parametrize(("quantization", "linear"), [("none", 2.0), ("int8", 1.0), ("nf4", 0.5 + 1 / 64 + 1 / 4096)])
def test_a_packed_teacher_keeps_its_embeddings_in_bf16(quantization: Any, linear: float) -> None:
    embeddings = 60 * 8
    expected = (10 * P - embeddings) * linear + embeddings * 2
    assert teacher_bytes(replace(JOB, quantization=quantization)) == round(expected)


def test_few_logits_are_the_models_own_and_many_are_hidden_states() -> None:
    """2 rows, y and ỹ, 32 columns: 60 pieces in bf16, or 8 hidden states."""
    assert teacher_predictions(JOB, INPUTS) == 2 * 2 * 32 * 60 * 2
    large = replace(JOB, teacher=replace(SHAPE, vocabulary=FEW))
    assert teacher_predictions(large, INPUTS) == 2 * 2 * 32 * 8 * 2
    assert teacher_predictions(replace(JOB, teacher=None), INPUTS) == 0


def test_the_loss_of_a_large_vocabulary_by_hand() -> None:
    """128 tokens in bf16: hidden states and their gradient, a chunk of each side, a strip, the head's gradient."""
    shape = replace(SHAPE, vocabulary=2**20, hidden=64)
    job = replace(JOB, student=shape, teacher=shape, precision="bf16")
    assert "sequence" in job.signals, "so a chunk may be half as long again"
    chunk = min(HALF_CHUNK_BYTES * 3 // 2, 128 * 2**20 * 2)
    strip = 10 * 4 * STRIP_ELEMENTS
    assert loss_bytes(job, INPUTS) == 3 * 128 * 64 * 2 + 2 * chunk + strip + 2**20 * 64 * 4
    adapted = replace(job, adapter=10)
    assert loss_bytes(adapted, INPUTS) == 3 * 128 * 64 * 2 + 2 * chunk + strip


def test_what_is_judged_together_takes_a_larger_chunk() -> None:
    shape = replace(SHAPE, vocabulary=2**20, hidden=64)
    alone = replace(JOB, student=shape, teacher=shape, precision="bf16", signals=frozenset({"on_policy"}))
    most = 32 * 2 * 2**20 * 2
    assert chunks(alone, INPUTS) == 2 * min(HALF_CHUNK_BYTES, most)
    rows = INPUTS._replace(rows=20)
    assert chunks(replace(alone, spans=True), rows) == chunks(alone, rows) * 3 // 2
    assert chunks(replace(alone, spans=True, signals=frozenset({"sft"})), rows) == HALF_CHUNK_BYTES
    assert chunks(replace(alone, signals=frozenset({"sequence"})), rows) == HALF_CHUNK_BYTES * 3 // 2


def test_the_teacher_s_chunk_has_the_student_s_positions() -> None:
    shape, rows = replace(SHAPE, vocabulary=2**20, hidden=64), INPUTS._replace(rows=20)
    job = replace(JOB, student=shape, teacher=shape, precision="bf16", signals=frozenset({"off_policy"}))
    assert chunks(replace(job, teacher_dtype="fp32"), rows) == 3 * HALF_CHUNK_BYTES
    assert chunks(replace(job, cache="top_k"), rows) == (1 + 2) * HALF_CHUNK_BYTES
    both = replace(job, cache="top_k", signals=frozenset({"off_policy", "on_policy"}))
    assert chunks(both, rows) == (1 + 2 + 1 + 2) * HALF_CHUNK_BYTES  # kept, live, and put together
    assert chunks(replace(both, cache="hidden"), rows) == (1 + 1 + 1 + 1) * HALF_CHUNK_BYTES
    spans = replace(job, precision="fp32", spans=True)
    assert chunks(spans, rows) == CHUNK_BYTES * 3 // 2 + HALF_CHUNK_BYTES  # its own tokens are read before


def test_a_chunk_is_as_long_as_the_larger_vocabulary_allows() -> None:
    student, teacher = replace(SHAPE, vocabulary=2**18, hidden=64), replace(SHAPE, vocabulary=2**20, hidden=64)
    job = replace(JOB, student=student, teacher=teacher, precision="bf16", signals=frozenset({"off_policy"}))
    assert chunks(job, INPUTS._replace(rows=20)) == HALF_CHUNK_BYTES // 4 + HALF_CHUNK_BYTES


def test_a_cache_of_keys_and_values_by_hand() -> None:
    """4 rows of 16 + 32 columns, 2 layers and the copy of one that grows, keys and values of 4, fp32."""
    cache = 4 * 48 * 3 * 2 * 4 * 4
    drawn = 4 * 50 * (4 + 24)
    assert rollout_bytes(replace(JOB, inputs=(INPUTS._replace(sampled_prompt=16),)), INPUTS) >= cache + drawn
    more = replace(JOB, student=replace(SHAPE, key_value=8))
    assert rollout_bytes(more, INPUTS) - rollout_bytes(JOB, INPUTS) == cache


# Activations, against what autograd keeps

FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {"head_dim": 16}),
    "gemma3": (Gemma3TextConfig, {"head_dim": 16}),
}
ROWS, COLUMNS = 4, 96


@pytest.mark.parametrize("way", ["alone", "packed", "shared"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)], ids=["fp32", "bf16"])
def test_a_layer_keeps_what_autograd_keeps(family: str, dtype: torch.dtype, size: int, way: str) -> None:
    one, three = (_kept(_config(family, layers), dtype, way) for layers in (1, 3))
    shape = shape_of(_config(family, 1), 0)
    masked = needs_mask(replace(JOB, packs=way == "packed"), shape, COLUMNS)
    expected = ROWS * COLUMNS * layer_bytes(shape, size) + (mask_bytes(ROWS, COLUMNS, size) if masked else 0)
    assert (three - one) / 2 == pytest.approx(expected, rel=0.05)


def test_pairs_that_share_their_prompt_have_a_line_each_and_one_mask() -> None:
    """2 lines of 80 columns instead of 4 of 48; in the teacher's forward pass the mask is there a second time."""
    sharing = Sharing(8, None)
    job, inputs = replace(JOB, sharing=sharing, teacher_sharing=sharing), INPUTS._replace(apart=0, teacher_apart=0)
    alone, shared = activations(JOB, INPUTS), activations(job, inputs)
    assert shared == alone * (2 * 80) // (4 * 48) + 2 * 80**2 * 4
    one = replace(job, student=replace(SHAPE, layers=1))
    assert shared - activations(one, inputs) == alone * (2 * 80) // (4 * 48) // 2
    forward = teacher_pass(JOB, INPUTS)
    assert teacher_pass(job, inputs) == forward * (2 * 112) // (4 * 80) + 2 * (2 * 112**2 * 2)
    # beside shorter rollouts they lie apart, which is more: 4 lines of 48
    assert activations(job, INPUTS._replace(apart=31)) == alone + 4 * 48**2 * 4


def test_what_makes_rollouts_or_rows_shorter_makes_shared_lines_shorter() -> None:
    job = replace(JOB, sharing=Sharing(8, None), on_cpu=False, inputs=(INPUTS._replace(apart=0, rows=400, row=96),))
    changes = {change.field: change.job for change in _changes(job, 0)}
    for field in ("rollouts.max_new_tokens", "data.max_length"):
        assert activations(changes[field], changes[field].inputs[0]) < activations(job, job.inputs[0])


def test_a_window_that_is_shorter_than_a_line_needs_a_mask() -> None:
    short = replace(SHAPE, window=48)
    assert [needs_mask(JOB, short, columns) for columns in (47, 48)] == [False, True]
    masked = replace(JOB, student=short)
    assert activations(masked, INPUTS) - activations(JOB, INPUTS) == 2 * mask_bytes(2 * 2, 48, 4)


def _config(family: str, layers: int) -> PreTrainedConfig:
    kind, more = FAMILIES[family]
    return kind(
        vocab_size=100, hidden_size=64, intermediate_size=192, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, **more,
    )  # fmt: skip


def _kept(config: PreTrainedConfig, dtype: torch.dtype, way: str) -> int:
    """Bytes of all storages that a forward pass saves for backward; weights left out. way: how rows lie in a line."""
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.ones(ROWS, COLUMNS, dtype=torch.long)
    given = {} if way == "alone" else {"position_ids": (torch.arange(COLUMNS) % 50).expand(ROWS, -1)}
    if way == "shared":
        given["attention_mask"] = torch.zeros(ROWS, 1, COLUMNS, COLUMNS, dtype=dtype)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=ids, **given, use_cache=False, logits_to_keep=1)
    return sum(storage.nbytes() for storage in kept.values())


# How it moves


def test_activations_grow_with_rows_and_layers() -> None:
    once = activations(JOB, INPUTS)
    assert activations(JOB, INPUTS._replace(rows=4)) == 2 * once
    assert activations(replace(JOB, student=replace(SHAPE, layers=4)), INPUTS) == 2 * once


def test_the_peak_is_that_of_the_largest_phase_and_input() -> None:
    larger = INPUTS._replace(rows=64)
    made = estimate(replace(JOB, inputs=(INPUTS, larger)))
    assert made.peak == estimate(replace(JOB, inputs=(larger,))).peak
    assert made.peak == max(sum(parts.values()) for parts in made.phases.values())


def test_a_signal_that_is_off_costs_nothing() -> None:
    alone = estimate(replace(JOB, signals=frozenset({"sft"}), teacher=None))
    assert set(alone.phases) == {"backward", "update"}
    for parts in alone.phases.values():
        assert not parts.get("teacher")
        assert not parts.get("reference")


def test_more_processes_never_need_more_each() -> None:
    for stage in (0, 1, 2, 3):
        peaks = [estimate(replace(JOB, stage=stage, processes=n, precision="bf16")).peak for n in (1, 2, 8)]
        assert peaks == sorted(peaks, reverse=True)


# Adapters, checkpointing, and where the teacher lies, by hand

ADAPTED = replace(JOB, adapter=100, precision="bf16", copies_reference=False)


def test_under_an_adapter_only_the_adapter_has_gradients_and_an_optimizer() -> None:
    assert engine_of(ADAPTED.learner).optimizer == 12 * 100
    always = estimate(ADAPTED).phases["update"]
    assert always["weights"] == 2 * P + 2 * 100
    assert always["optimizer"] == 12 * 100
    assert always["reference"] == 0
    assert estimate(replace(ADAPTED, copies_reference=True)).phases["update"]["reference"] == 2 * P


def test_the_frozen_weights_may_be_packed() -> None:
    packed = estimate(replace(ADAPTED, packed="int8")).phases["update"]["weights"]
    assert packed == (P - 50 * 8) + 2 * 50 * 8 + 2 * 100


def test_checkpointing_keeps_the_inputs_of_all_layers_and_all_of_one() -> None:
    tokens = 2 * 2 * 48
    whole, recomputed = activations(JOB, INPUTS), activations(replace(JOB, recomputes=True), INPUTS)
    assert whole - recomputed == whole // 2 - 2 * tokens * 8 * 4


def test_an_offloaded_teacher_takes_what_it_may_and_a_shared_one_its_share_and_what_is_gathered() -> None:
    whole = 10 * P * 2
    assert teacher_bytes(replace(JOB, placement="offload", device_memory=bytes_of("1MiB"))) == whole
    assert teacher_bytes(replace(JOB, placement="offload", device_memory=500)) == 500
    assert teacher_bytes(replace(JOB, placement="sharded", processes=4)) == whole // 4 + whole, (
        "a bucket is larger than it"
    )
    assert bytes_of("20GiB") == 20 * 2**30
