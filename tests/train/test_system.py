"""Figures of the machine, and the mode in which every bit is the same."""

import os

import psutil
import pytest
import torch

from dudi_kit.errors import EnvironmentLack, Exit
from dudi_kit.train import system
from dudi_kit.train.determinism import determinism, running_sum
from dudi_kit.train.system import resident_bytes, system_line

CPU = torch.device("cpu")


def test_resident_memory_is_what_the_system_says():
    assert resident_bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.02)


def test_where_the_system_does_not_say_it_is_the_most_that_was_held(monkeypatch, tmp_path):
    now = resident_bytes()
    monkeypatch.setattr(system, "STATM", tmp_path / "missing")
    assert now * 0.9 < resident_bytes() < now * 100


def test_one_process_has_a_maximum_and_several_have_values_by_rank():
    assert system_line(CPU, 0, 1).keys() == {"resident_bytes"}
    assert system_line(CPU, 0, 1)["resident_bytes"].keys() == {"max"}
    several = system_line(CPU, 1, 2)["resident_bytes"]  # without a process group the other rank stays 0
    assert several["by_rank"] == {"0": 0.0, "1": several["max"]}
    assert several["max"] > 1e7


def test_what_no_driver_says_is_left_out(monkeypatch):
    monkeypatch.setattr(system, "_measured", lambda device: {"resident_bytes": 5.0, "gpu_busy_percent": -1.0})
    assert system_line(CPU, 0, 1) == {"resident_bytes": {"max": 5.0}}


def test_deterministic_algorithms_are_on_inside_and_off_outside(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with determinism(wanted=False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with determinism(wanted=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_algorithm_is_named():
    numbers = torch.randn(4, 4)
    said = r"training.deterministic: put_ has no .*deterministic: false"
    with pytest.raises(EnvironmentLack, match=said) as caught, determinism(wanted=True):
        numbers.put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]), accumulate=False)
    assert caught.value.exit_code is Exit.ENVIRONMENT


def test_any_other_fault_is_left_as_it_is():
    with pytest.raises(RuntimeError, match="another"), determinism(wanted=True):
        raise RuntimeError("another")


@pytest.mark.parametrize("width", [1, 5, 511, 512, 513, 2048, 151_936])
def test_the_running_sum_of_that_mode_is_the_usual_one(width):
    shares_BV = torch.rand(3, width, generator=torch.Generator().manual_seed(width)).softmax(-1)
    usual = running_sum(shares_BV)
    with determinism(wanted=True):
        blocks = running_sum(shares_BV)
    assert usual.dtype == blocks.dtype == torch.float64
    assert blocks.shape == usual.shape
    assert (blocks - usual).abs().max() < 1e-13
