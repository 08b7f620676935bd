"""The commands that start a planned run directory. What they do was tried with two CPU processes each."""

import os
import subprocess
from pathlib import Path

import pytest

from dudi_kit.plan.hardware import parse_hardware
from dudi_kit.plan.launchers import launchers, slurm_script

ONE = parse_hardware("2xH100-80G", processes=None)
TWO = parse_hardware("2x8xH100-80G", processes=None)


def test_each_launcher_starts_our_module_once_for_each_gpu() -> None:
    assert launchers("out/my run", ONE) == {
        "torchrun": "torchrun --standalone --nproc-per-node=2 -m dudi_kit.pipeline.worker 'out/my run' --resume",
        "accelerate": "accelerate launch --use_deepspeed --num_processes 2 "
        "-m dudi_kit.pipeline.worker 'out/my run' --resume",
        "deepspeed": "deepspeed --num_gpus 2 --no_local_rank --module dudi_kit.pipeline.worker 'out/my run' --resume",
    }


def test_several_machines_meet_at_the_first() -> None:
    lines = launchers("out", TWO)
    assert "--nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d" in lines["torchrun"]
    assert '"$MASTER_ADDR:29500"' in lines["torchrun"]
    assert '--num_processes 16 --num_machines 2 --machine_rank "$NODE_RANK"' in lines["accelerate"]
    assert "--hostfile hostfile --num_nodes 2 --num_gpus 8" in lines["deepspeed"]
    assert lines["accelerate"].endswith("--resume  # NODE_RANK: 0 on the first machine, 1 on the next")
    assert lines["deepspeed"].endswith("  # hostfile: a line `NAME slots=8` for each machine, reached by ssh")


def fake(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """A PATH on which Slurm's commands only write down how they were called."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    fake(bin_folder, "scontrol", "printf 'node7\\nnode8\\n'")
    fake(bin_folder, "srun", 'while [[ "$1" == --* ]]; do shift; done; "$@"')
    fake(bin_folder, "torchrun", f'printf "%s\\n" "$@" --- >> {tmp_path}/calls')
    return os.environ | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_ID": "7",
    }


def test_the_script_for_slurm_trains_every_stage_in_order_on_all_nodes(tmp_path: Path, cluster: dict[str, str]) -> None:
    runs = [tmp_path / "cold start", tmp_path / "student"]
    script = tmp_path / "train.sbatch"
    script.write_text(slurm_script("student", [str(run) for run in runs], TWO, then="dudi-kit evaluate recipe.yaml"))
    subprocess.run(["bash", script], env=cluster, check=True)
    calls = (tmp_path / "calls").read_text().split("---\n")
    assert [call.splitlines()[-2:] for call in calls[:2]] == [[str(run), "--resume"] for run in runs]
    first = calls[0].splitlines()
    assert {"--nnodes=2", "--nproc-per-node=8", "--rdzv-id=7", "--rdzv-endpoint=node7:29500"} < set(first)
    assert "#SBATCH --gpus-per-node=8" in script.read_text()
    assert "disk that all nodes share" in script.read_text()


def test_a_job_that_is_queued_again_passes_over_what_is_trained(tmp_path: Path, cluster: dict[str, str]) -> None:
    (tmp_path / "teacher" / "final").mkdir(parents=True)
    script = slurm_script("student", [str(tmp_path / "teacher"), str(tmp_path / "student")], TWO, then="…")
    subprocess.run(["bash", "-c", script], env=cluster, check=True, capture_output=True)
    assert (tmp_path / "calls").read_text().count("---") == 1
