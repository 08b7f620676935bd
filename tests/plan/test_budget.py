"""Which fields would help, and what they save."""

from dataclasses import replace

from dudi_kit.plan.budget import host_bytes, planned_memory, remedies
from dudi_kit.plan.hardware import parse_hardware
from dudi_kit.plan.job import Inputs, Job
from dudi_kit.plan.memory import estimate
from dudi_kit.plan.shape import ModelShape

STUDENT = ModelShape(
    parameters=500_000_000, vocabulary=152_000, hidden=896, layers=24, query=896, key_value=128, intermediate=4864
)
TEACHER = ModelShape(
    parameters=32_000_000_000, vocabulary=152_000, hidden=5120, layers=64, query=8192, key_value=1024,
    intermediate=25_600, tied=False,
)  # fmt: skip
INPUTS = Inputs(
    rows=8, prompt=512, response=512, row=1024, teacher_prompt=1024, teacher_row=1536,
    sampled_rows=8, sampled_prompt=512,
)  # fmt: skip
JOB = Job(
    student=STUDENT, teacher=TEACHER, teacher_dtype="bf16", quantization="none", precision="bf16", stage=1, processes=8,
    accumulation=1, signals=frozenset({"sequence", "off_policy", "on_policy"}), new_tokens=256, inputs=(INPUTS,),
    on_cpu=False,
)  # fmt: skip
EIGHT = parse_hardware("8xH100-80G", processes=None)


def test_what_each_field_saves_is_the_estimate_with_that_field() -> None:
    found = {(remedy.field, remedy.then): remedy.peak_bytes for remedy in remedies(JOB, EIGHT)}
    assert found["teacher.quantization", "nf4"] == estimate(replace(JOB, quantization="nf4")).peak
    assert found["deepspeed.stage", "2"] == estimate(replace(JOB, stage=2)).peak
    assert (
        found["rollouts.max_new_tokens", "128"] <= estimate(JOB).peak
        if ("rollouts.max_new_tokens", "128") in found
        else True
    )


def test_the_best_remedy_comes_first_and_none_is_useless() -> None:
    now, found = estimate(JOB).peak, remedies(JOB, EIGHT)
    peaks = [remedy.peak_bytes for remedy in found]
    assert peaks == sorted(peaks)
    assert all(peak < now for peak in peaks)
    assert found[0].field == "teacher.quantization", "64 GB of bf16 are most of it"


def test_a_micro_batch_is_halved_only_until_it_fits() -> None:
    packed = replace(JOB, quantization="nf4")
    [found] = [remedy for remedy in remedies(packed, EIGHT) if remedy.field == "training.micro_batch_size"]
    assert (found.now, found.peak_bytes <= EIGHT.bytes_for_a_process) == ("8", True)
    above = replace(
        packed, inputs=(INPUTS._replace(rows=int(found.then) * 2),), accumulation=8 // (int(found.then) * 2)
    )
    assert found.then == "4" or estimate(above).peak > EIGHT.bytes_for_a_process


def test_every_stage_is_estimated() -> None:
    memory = planned_memory(JOB, EIGHT)
    assert [made.stage for made in memory.stages] == [0, 1, 2, 3]
    assert memory.chosen.stage == 1
    assert memory.fits == (memory.chosen.peak_bytes <= 80 * 2**30)
    for made in memory.stages:
        assert made.peak_bytes == sum(made.phases[made.peak_phase].values())


def test_what_can_be_offloaded_at_a_stage_is_offered() -> None:
    def offered(job: Job) -> set[str]:
        return {remedy.field for remedy in remedies(job, EIGHT) if remedy.field.startswith("deepspeed.offload")}

    large = replace(JOB, teacher=None, signals=frozenset({"sft"}), student=replace(STUDENT, parameters=8 * 10**9))
    assert offered(replace(large, stage=0, precision="fp32")) == set()
    assert offered(large) == {"deepspeed.offload.optimizer"}
    assert "deepspeed.offload.parameters" in offered(replace(large, stage=3))
    assert offered(replace(large, optimizer="adamw_8bit")) == set()


def test_main_memory_for_what_is_offloaded_is_that_of_all_processes_of_a_machine() -> None:
    memory = planned_memory(replace(JOB, offloaded=frozenset({"optimizer"})), EIGHT)
    assert memory.offloaded_bytes == 16 * JOB.student.parameters
    assert planned_memory(JOB, EIGHT).offloaded_bytes == 0


def test_a_packed_teacher_needs_no_main_memory_to_load() -> None:
    assert host_bytes(JOB) - host_bytes(replace(JOB, quantization="nf4")) > 55 * 10**9
