"""Peak memory of real training runs on this machine's CPU, beside the plan's estimate.

    python -m benchmarks.memory            every run, a few minutes; prints the table of benchmarks/README.md
    python -m benchmarks.memory small-fp32 one of them

A run has random weights of a given shape, all signals and short rows. What is measured is VmHWM of each training
process: the most that it ever held, libraries included.
"""

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dudi_kit.data.chat import resolve_template
from dudi_kit.data.tokenizers import train_tokenizer
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import read_plan

LANGUAGES = ("id", "vi", "th")


class Case(NamedTuple):
    """A run to measure."""

    name: str
    hidden: int
    layers: int
    vocabulary: int
    precision: str
    stage: int = 0
    processes: int = 1
    words: int = 16
    """Of a prompt and of a response, about as many tokens."""

    new_tokens: int = 32
    batch_size: int = 8
    micro_batch_size: int = 4
    signals: str = "all"
    teacher_dtype: str = "bf16"


CASES = (
    Case("small-fp32", 256, 4, 8_000, "fp32", words=32),
    Case("small-bf16-2-processes", 256, 4, 8_000, "bf16", processes=2, words=32),
    Case("medium-fp32", 512, 8, 32_000, "fp32"),
    Case("medium-bf16", 512, 8, 32_000, "bf16"),
    Case("medium-fp32-sft", 512, 8, 32_000, "fp32", signals="sft", words=48),
    Case("medium-fp32-zero2-2-processes", 512, 8, 32_000, "fp32", stage=2, processes=2),
    Case("medium-bf16-zero2-2-processes", 512, 8, 32_000, "bf16", stage=2, processes=2),
    Case("large-fp32", 640, 10, 151_936, "fp32", words=12, batch_size=4, micro_batch_size=2),
    Case("large-bf16", 640, 10, 151_936, "bf16", words=12, batch_size=4, micro_batch_size=2),
)


def prepare(case: Case, folder: Path) -> Path:
    """Models, rows and recipe of a case; the path of the recipe."""
    rows = [_row(i, case.words) for i in range(48)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenizer = padded_tokenizer([text for row in rows for text in row.values()], case.vocabulary)
    for who in ("student", "teacher"):
        _model(case, len(tokenizer)).save_pretrained(folder / who)
        tokenizer.save_pretrained(folder / who)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(_recipe(case), sort_keys=False), encoding="utf-8")
    return recipe


def padded_tokenizer(texts: list[str], pieces: int) -> Any:
    """A tokenizer with as many pieces as asked for; most of them never occur, but every logit counts them."""
    made = train_tokenizer(texts, 600)
    content = json.loads(made.backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    taken = len(made)
    vocabulary |= {f"never-{number}": number for number in range(taken, pieces)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        eos_token=made.eos_token,
        pad_token=made.pad_token,
    )
    resolve_template(tokenizer, "chatml", who="student")
    return tokenizer


def measure(run: RunDir, processes: int) -> list[int]:
    """Train a planned run directory; the peak of each process in bytes."""
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "CUDA_VISIBLE_DEVICES": "",
    }
    workers = []
    for rank in range(processes):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        command = [sys.executable, "-m", "dudi_kit.pipeline.worker", str(run.path)]
        workers.append(
            subprocess.Popen(command, env=environment | ranks, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        )
    peaks = [0] * processes
    while any(worker.poll() is None for worker in workers):
        peaks = [max(peak, _peak(worker.pid)) for peak, worker in zip(peaks, workers, strict=True)]
        time.sleep(0.02)
    for worker in workers:
        if worker.returncode:
            raise RuntimeError(worker.stderr.read().decode() if worker.stderr else "")
    return peaks


def _peak(pid: int) -> int:
    """VmHWM, not ru_maxrss: the latter keeps the parent's size over exec."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _row(i: int, words: int) -> dict[str, str]:
    language = LANGUAGES[i % len(LANGUAGES)]

    def text(start: int) -> str:
        return " ".join(f"{language}{(start + n) % 50}" for n in range(words))

    return {
        "prompt": text(i), "response": text(i + 7), "language": language,
        "english_prompt": text(i + 3), "english_response": text(i + 5),
    }  # fmt: skip


def _model(case: Case, pieces: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=pieces, hidden_size=case.hidden, intermediate_size=4 * case.hidden, num_hidden_layers=case.layers,
        num_attention_heads=case.hidden // 64, num_key_value_heads=case.hidden // 128, max_position_embeddings=2048,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def _recipe(case: Case) -> dict[str, Any]:
    sft = {"sequence": {"weight": 0}, "off_policy": {"weight": 0}, "on_policy": {"weight": 0}, "sft": {"weight": 1}}
    return {
        "version": 1,
        "name": case.name,
        **({"teacher": {"model": "./teacher", "dtype": case.teacher_dtype}} if case.signals == "all" else {}),
        "student": {"model": "./student"},
        "data": {
            "train": {"rows": {"path": "rows.jsonl", "language": {"column": "language"}, "english": {}}},
            "max_length": 1024,
        },
        "signals": {} if case.signals == "all" else sft,
        "rollouts": {"max_new_tokens": case.new_tokens},
        "training": {
            "steps": 2, "batch_size": case.batch_size, "micro_batch_size": case.micro_batch_size,
            "learning_rate": 1e-5, "precision": case.precision, "log_every": 1,
        },
        "deepspeed": {"stage": case.stage},
    }  # fmt: skip


def plan(case: Case, folder: Path) -> RunDir:
    """A run directory that is ready to be trained."""
    recipe = prepare(case, folder)
    options = ["--output", str(folder / "out"), "--processes", str(case.processes)]
    subprocess.run(
        [sys.executable, "-m", "dudi_kit.cli", "plan", str(recipe), *options], check=True, capture_output=True
    )
    return RunDir(folder / "out" / case.name)


def main(names: list[str]) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {time.strftime('%-d %B %Y')}\n")
    print("| run | parameters | pieces | processes | estimate, MB | measured, MB | estimate / measured |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case in CASES:
        if not names or case.name in names:
            with tempfile.TemporaryDirectory() as folder:
                run = plan(case, Path(folder))
                planned = read_plan(run)
                measured = max(measure(run, case.processes))
            estimated = planned.memory.chosen.peak_bytes
            print(
                f"| {case.name} | {planned.parameters / 1e6:,.0f} M | {case.vocabulary:,} | {case.processes} | "
                f"{estimated / 1e6:,.0f} | {measured / 1e6:,.0f} | {estimated / measured:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
