"""Names of hardware, and what is wrong with the others."""

import pytest

from dudi_kit.plan.hardware import GIB, Hardware, parse_hardware, this_machine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8xH100-80G", Hardware("H100", 1, 8, 80 * GIB)),
        ("4xA100-40G", Hardware("A100", 1, 4, 40 * GIB)),
        ("2x8xH100-80G", Hardware("H100", 2, 8, 80 * GIB)),
        ("1xRTX4090", Hardware("RTX4090", 1, 1, 24 * GIB)),
        ("h200", Hardware("H200", 1, 1, 141 * GIB)),
        ("2xMI300-192g", Hardware("MI300", 1, 2, 192 * GIB)),
        ("cpu-24G", Hardware("cpu", 1, 1, 24 * GIB)),
    ],
)
def test_hardware_by_name(text: str, expected: Hardware) -> None:
    assert parse_hardware(text, processes=None) == expected


def test_there_is_a_process_for_each_gpu_and_each_has_a_whole_one() -> None:
    two_nodes = parse_hardware("2x8xH100-80G", processes=None)
    assert (two_nodes.processes, two_nodes.bytes_for_a_process) == (16, 80 * GIB)
    assert str(two_nodes) == "2x8xH100-80G"


def test_processes_on_a_cpu_share_its_memory() -> None:
    cpu = parse_hardware("cpu-24G", processes=3)
    assert (cpu.processes, cpu.bytes_for_a_process) == (3, 8 * GIB)
    assert str(cpu) == "cpu-24G"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8 GPUs", "is not of the form 8xH100-80G"),
        ("", "is not of the form"),
        ("8xH100-80", "is not of the form"),
        ("4xXYZ1", "write it as 4xXYZ1-80G. Known without: T4"),
        ("0xH100", "nothing in it"),
        ("2xcpu-24G", "--processes"),
        ("99999xH100", "is not of the form"),
    ],
)
def test_what_can_not_be_read_is_told_with_what_can(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="(?s)" + said.replace("(", r"\(")):
        parse_hardware(text, processes=None)


def test_gpus_and_processes_must_agree() -> None:
    assert parse_hardware("4xA100", processes=4).processes == 4
    with pytest.raises(ValueError, match="has 4 GPUs, one process each, and --processes is 2"):
        parse_hardware("4xA100", processes=2)


def test_this_machine_has_some_memory() -> None:
    assert this_machine(None).device_bytes > GIB // 4
    assert this_machine(2).processes == 2
