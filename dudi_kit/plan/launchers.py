"""How else a planned run directory can be trained: torchrun, accelerate, DeepSpeed's launcher, Slurm.

Each starts `python -m dudi_kit.pipeline.worker RUN` once for each GPU; that process reads all else from the run
directory. With --resume it goes on from the last checkpoint, or begins where there is none, so that a job may simply be
queued again.
"""

import shlex
from typing import Literal

from dudi_kit.plan.hardware import Hardware

Launcher = Literal["torchrun", "accelerate", "deepspeed", "slurm"]

PORT = 29500
ADDRESS = f'"$MASTER_ADDR:{PORT}"'
WORKER = "dudi_kit.pipeline.worker"


def launchers(run_dir: str, hardware: Hardware) -> dict[str, str]:
    """Launcher → a line of a shell, to be called on every machine (DeepSpeed's: on one), with MASTER_ADDR set to the
    first one's name where there are several."""
    worker = f"{WORKER} {shlex.quote(run_dir)} --resume"
    return {
        "torchrun": _torchrun(worker, hardware),
        "accelerate": _accelerate(worker, hardware),
        "deepspeed": _deepspeed(worker, hardware),
    }


def _torchrun(worker: str, hardware: Hardware) -> str:
    if hardware.nodes == 1:
        return f"torchrun --standalone --nproc-per-node={hardware.devices} -m {worker}"
    meeting = f"--rdzv-backend=c10d --rdzv-id=dudi-kit --rdzv-endpoint={ADDRESS}"
    return f"torchrun --nnodes={hardware.nodes} --nproc-per-node={hardware.devices} {meeting} -m {worker}"


def _accelerate(worker: str, hardware: Hardware) -> str:
    several = ""
    if hardware.nodes > 1:
        several = (
            f' --num_machines {hardware.nodes} --machine_rank "$NODE_RANK" --main_process_ip "$MASTER_ADDR" '
            f"--main_process_port {PORT} --deepspeed_multinode_launcher standard"
        )
    note = "  # NODE_RANK: 0 on the first machine, 1 on the next" if several else ""
    return f"accelerate launch --use_deepspeed --num_processes {hardware.processes}{several} -m {worker}{note}"


def _deepspeed(worker: str, hardware: Hardware) -> str:
    several = f"--hostfile hostfile --num_nodes {hardware.nodes} " if hardware.nodes > 1 else ""
    note = f"  # hostfile: a line `NAME slots={hardware.devices}` for each machine, reached by ssh" if several else ""
    return f"deepspeed {several}--num_gpus {hardware.devices} --no_local_rank --module {worker}{note}"


def slurm_script(name: str, run_dirs: list[str], hardware: Hardware, *, then: str) -> str:
    """A whole sbatch script. run_dirs: planned run directories in the order in which they are trained. then: what to
    call when all is trained."""
    trainings = "\n".join(f"train {shlex.quote(run_dir)}" for run_dir in run_dirs)
    gpus = "" if hardware.on_cpu else f"#SBATCH --gpus-per-node={hardware.devices}\n"
    return SCRIPT.format(
        job=shlex.quote(name),
        nodes=hardware.nodes,
        gpus=gpus,
        devices=hardware.devices,
        hardware=hardware,
        trainings=trainings,
        port=PORT,
        worker=WORKER,
        then=then,
    )


SCRIPT = """\
#!/bin/bash
# Trains on {hardware}. Written by `dudi-kit plan --emit slurm`; nothing is decided here, all is in the run directory.
#SBATCH --job-name={job}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
{gpus}#SBATCH --exclusive
#SBATCH --requeue
# Five minutes before the time is up, the training processes save and stop; submit the job again to go on.
#SBATCH --signal=TERM@300
# TO FILL IN: your cluster's partition and how long a job may take.
#SBATCH --partition=PARTITION
#SBATCH --time=24:00:00

# The run directory, the data and the Python environment must lie on a disk that all nodes share, under these paths.
# TO FILL IN: activate that environment, as in: source /shared/venv/bin/activate
set -euo pipefail

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
export MASTER_ADDR
export HF_HUB_OFFLINE=${{HF_HUB_OFFLINE:-1}}  # fetch models and data before; compute nodes seldom reach the hub

export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240  # seconds that torchrun gives them for that; its own 30 may be too few

# One torchrun on each node starts a process for each GPU. --resume goes on from the last checkpoint, if there is one,
# so a job that was cut off can be submitted again as it is.
train() {{
    if [ -d "$1/final" ]; then
        echo "$1 is trained already"
        return
    fi
    srun --kill-on-bad-exit=1 torchrun --nnodes={nodes} --nproc-per-node={devices} --rdzv-backend=c10d \\
        --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$MASTER_ADDR:{port}" -m {worker} "$1" --resume
}}

{trainings}

# Then, on one machine: {then}
"""
