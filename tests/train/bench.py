"""Real training runs in processes of their own, as small as they get: two layers, some hundred pieces, 24 rows.

`Bench` makes a folder with a teacher, a student and a recipe; plans runs of it; starts, kills and reads them.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from dudi_kit.cli import app
from dudi_kit.data.chat import resolve_template
from dudi_kit.data.encode import Encoder
from dudi_kit.data.tokenizers import train_tokenizer
from dudi_kit.plan.engine import launch_command
from dudi_kit.plan.layout import RunDir

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",  # these runs are about the split, not about the machine
    "HF_HUB_OFFLINE": "1",
    "TERM": "dumb",
}

WORDS = {
    "id": "kucing itu tidur di bawah meja makan dan ibu pergi ke pasar pagi ini membeli beras".split(),
    "vi": "con mèo đang ngủ dưới gầm bàn còn mẹ thì đi chợ từ sáng sớm để mua gạo".split(),
    "th": "แมว นอน หลับ อยู่ ใต้ โต๊ะ แม่ ไป ตลาด ตั้งแต่ เช้า เพื่อ ซื้อ ข้าว".split(),
}
ENGLISH = "the cat sleeps under the table and mother went to the market this morning to buy rice".split()

RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "bench",
    "teacher": {"model": "./teacher", "dtype": "fp32"},
    "student": {"model": "./student"},
    "data": {
        "train": {"rows": {"path": "rows.jsonl", "language": {"column": "language"}, "english": {}}},
        "max_length": 64,
        "on_too_long": "truncate",
    },
    "signals": {
        "sequence": {"weight": 0.7, "beta": 0.2},
        "off_policy": {"weight": 0.4, "divergence": {"type": "jsd", "beta": 0.3}},
        "on_policy": {"weight": 0.6, "temperature": 1.5},
        "sft": {"weight": 0.2},
    },
    "rollouts": {"max_new_tokens": 12},
    "training": {
        "steps": 5, "batch_size": 8, "learning_rate": 5e-4, "precision": "fp32", "log_every": 1, "keep_checkpoints": 5,
    },
}  # fmt: skip

ROWS = 24


class Bench:
    """A folder with models, rows and recipe, and the runs of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "recipe.yaml"
        self.output = folder / "outputs"
        self._planning = threading.Lock()
        self.recipe.write_text(yaml.safe_dump(RECIPE, sort_keys=False), encoding="utf-8")
        rows = [_row(i, language) for i in range(ROWS // len(WORDS)) for language in WORDS]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
        tokenizer = train_tokenizer([value for row in rows for value in row.values()], 400)
        resolve_template(tokenizer, "chatml", who="student")
        pieces, end = len(tokenizer), Encoder(tokenizer, who="student").end_of_turn_id
        for name, model in (("student", _student(pieces)), ("teacher", _teacher(pieces))):
            with torch.no_grad():  # samples should end now and then
                model.lm_head.weight[end] *= 3
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)

    def plan(self, name: str, processes: int = 1, **settings: str) -> RunDir:
        """A run directory that is ready to be trained. settings: recipe paths with `__` for the dots."""
        changes = {"name": name, **{path.replace("__", "."): value for path, value in settings.items()}}
        words = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
        arguments = ["plan", str(self.recipe), "--output", str(self.output), "--processes", str(processes), *words]
        with self._planning:
            assert not app(arguments, standalone_mode=False)
        return RunDir(self.output / name)

    def start(self, run: RunDir, processes: int = 1, *, resume: bool = False) -> "Worker":
        return Worker(run, processes, resume=resume)

    def train(self, name: str, processes: int = 1, **settings: str) -> RunDir:
        """Plan and train."""
        run = self.plan(name, processes, **settings)
        self.start(run, processes).finish()
        return run


class Worker:
    """The processes of one training run, in a group of their own."""

    def __init__(self, run: RunDir, processes: int, *, resume: bool) -> None:
        self.run = run
        self.log = run.path.with_name(f"{run.path.name}{'.resumed' if resume else ''}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *launch_command(processes, str(run.path), resume=resume)],
                env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def finish(self) -> str:
        """Wait for the end, which must be a good one; what it said."""
        assert self.process.wait(timeout=300) == 0, self.said
        return self.said

    def kill_when(self, condition: Callable[[], bool]) -> None:
        """SIGKILL to all processes as soon as the condition holds."""
        give_up = time.monotonic() + 300
        while not condition():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < give_up, self.said
            time.sleep(0.0005)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def metrics(run: RunDir) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without those that a clock wrote."""
    lines = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    return [
        {key: value for key, value in line.items() if key not in {"seconds", "tokens_per_second"}} for line in lines
    ]


def weights(run: RunDir) -> dict[str, Tensor]:
    return load_file(run.final / "model.safetensors")


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """A nested line as path → number, to compare two of them with a tolerance."""
    if not isinstance(value, dict):
        return {path: value}
    return {name: leaf for key, item in value.items() for name, leaf in leaves(item, f"{path}/{key}").items()}


def _row(i: int, language: str) -> dict[str, str]:
    """Prompts and responses of every length; some are longer than `max_length` and get cut."""
    words = WORDS[language][i:] + WORDS[language][:i]
    english = ENGLISH[i:] + ENGLISH[:i]
    return {
        "prompt": " ".join(words[: 1 + 2 * i % 7]),
        "response": " ".join(words[-(1 + 3 * i % 11) :]),
        "language": language,
        "english_prompt": " ".join(english[: 1 + i % 5]),
        "english_response": " ".join(english[-(1 + i % 4) :]),
    }


def _student(pieces: int) -> Any:
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=pieces + 8, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2, tie_word_embeddings=False,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def _teacher(pieces: int) -> Any:
    """Another family, another width, and more rows of padding than the student has."""
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=pieces + 24, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, initializer_range=0.2, tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)
