"""`dudi-kit plan` as people see it: the tables, what does not fit, other launchers; and offline on a warm cache."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dudi_kit.pipeline.show_plan import show_plan
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import Plan, read_plan
from tests.report.test_pruning import PRUNING
from tests.small import call, tokenizer, write_chain, write_shell
from tests.standin_hub import StandinHub


def with_teacher(folder: Path, **changes: Any) -> Path:
    """A recipe whose teacher and student are folders, so that it is planned in one stage."""
    made = tokenizer()
    for who, width in (("student", 16), ("teacher", 512)):
        write_shell(folder / who, made, width=width)
    models = {"teacher": {"model": "./teacher"}, "student": {"model": "./student"}}
    return write_chain(folder, **{**models, **changes})


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, RunDir]:
    folder = tmp_path_factory.mktemp("planned")
    result = call("plan", with_teacher(folder), "--output", folder / "out", "--hardware", "8xH100-80G",
                  "--training.batch_size=16")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    run = RunDir(folder / "out" / "student")
    return read_plan(run), run


def shown(plan: Plan, run: RunDir, width: int) -> str:
    console = Console(width=width, soft_wrap=True, record=True, file=open("/dev/null", "w"), force_terminal=True)  # noqa: SIM115 – recorded
    show_plan(console, plan, run, main=True)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 140])
def test_the_view_stays_within_the_terminal_and_says_all(planned: tuple[Plan, RunDir], width: int) -> None:
    text = shown(*planned, width)
    assert max(len(line) for line in text.splitlines()) <= width
    for words in (
        "8xH100-80G, 8 processes", "th Thai", "teacher reads", "▸ZeRO 0", "ZeRO 3", "libraries",
        "engine's buffers", "at the peak", "fits", "disk", "loading",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("width", [80, 140])
def test_of_a_student_that_is_cut_it_says_what_stays(planned: tuple[Plan, RunDir], width: int) -> None:
    plan, run = planned
    text = shown(plan.model_copy(update={"pruning": PRUNING}), run, width)
    assert max(len(line) for line in text.splitlines()) <= width
    words = " ".join(text.split())
    assert "3 of 6 layers (0 3 5)" in words
    assert "12,500" in words
    assert "stay for no text." in words
    assert "…" not in text


def test_the_parts_at_a_peak_add_up_to_it(planned: tuple[Plan, RunDir]) -> None:
    for made in planned[0].memory.stages:
        assert sum(made.phases[made.peak_phase].values()) == made.peak_bytes


def test_what_is_planned_for_gpus_is_started_on_as_many(planned: tuple[Plan, RunDir]) -> None:
    plan, run = planned
    assert (plan.processes, plan.memory.hardware, plan.memory.nodes) == (8, "8xH100-80G", 1)
    assert "--nproc-per-node=8" in plan.launch
    assert set(plan.launchers) == {"torchrun", "accelerate", "deepspeed"}
    assert json.loads(run.ds_config.read_text())["train_batch_size"] == 16


def test_tokens_are_told_by_language_and_side(planned: tuple[Plan, RunDir]) -> None:
    for share in planned[0].languages.values():
        assert share.prompt_tokens + share.response_tokens == share.tokens
        assert share.teacher_prompt_tokens > share.prompt_tokens, "the demonstration"


def test_what_does_not_fit_ends_with_4_and_says_which_field_saves_how_much(tmp_path: Path) -> None:
    recipe = with_teacher(tmp_path)
    result = call("plan", recipe, "--output", tmp_path / "out", "--hardware", "1xH100-1G", "--training.batch_size=512")
    assert result.exit_code == 4
    assert "student does not fit 1xH100-1G: a process needs about" in result.stderr
    assert "Most take" in result.stderr
    assert "training.micro_batch_size: 512 → " in result.stderr
    assert "fits" in result.stderr
    assert (tmp_path / "out" / "student" / "plan.json").is_file(), "to look at"


def test_a_machine_that_nobody_named_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dudi_kit.plan.hardware.machine_bytes", lambda: 2**29)
    result = call("plan", with_teacher(tmp_path), "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "warning: student does not fit cpu-0G" in result.stderr


def test_hardware_that_can_not_be_read_is_the_command_lines_fault(tmp_path: Path) -> None:
    result = call("plan", with_teacher(tmp_path), "--hardware", "four big ones")
    assert result.exit_code == 2
    assert "8xH100-80G" in result.stderr


@pytest.mark.parametrize("launcher", ["slurm", "deepspeed"])
def test_an_emitted_command_is_all_that_goes_to_stdout(tmp_path: Path, launcher: str) -> None:
    options = ["--output", tmp_path / "out", "--hardware", "2x2xH100-80G", "--emit", launcher]
    result = call("plan", with_teacher(tmp_path), *options, "--training.batch_size=8")
    assert result.exit_code == 0, result.stderr
    first = {"slurm": "#!/bin/bash"}.get(launcher, launcher)
    assert result.stdout.startswith(first)
    assert str(tmp_path / "out" / "student") in result.stdout
    assert "ZeRO" in result.stderr


def test_a_warm_cache_without_weights_is_enough_and_a_cold_one_is_told_at_once(tmp_path: Path) -> None:
    hub = StandinHub(tmp_path / "hub")
    for name in ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-3B-Instruct"):
        (hub.add_model(name) / "model.safetensors").unlink()
    models = {"teacher": {"model": "Qwen/Qwen2.5-3B-Instruct"}, "student": {"model": "Qwen/Qwen2.5-0.5B"}}
    recipe = write_chain(tmp_path, **models)
    with hub.in_use():
        warm = call("plan", recipe, "--output", tmp_path / "warm", "--hardware", "8xH100", "--training.batch_size=8")
        cold = call("plan", recipe, "--output", tmp_path / "cold", "--student.model=Qwen/Qwen2.5-1.5B")
    assert warm.exit_code == 0, warm.stderr
    assert "3,085,938,688 parameters in bf16" in warm.stderr
    assert cold.exit_code == 4
    assert "tokenizer of 'Qwen/Qwen2.5-1.5B': the hub can't be reached" in cold.stderr
