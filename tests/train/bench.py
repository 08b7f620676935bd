"""Real training runs in processes of their own, as small as they get: two layers, some hundred pieces, 24 rows.

`Bench` makes a folder with a teacher, another one with a tokenizer of its own, a student and a
recipe; plans runs of it; starts, kills and reads them. Processes begin warm (`tests.train.warm`), or by the command
line of the plan where a run says so.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from multiprocessing import connection
from multiprocessing.process import BaseProcess
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
from tests.train import warm

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",  # these runs are about the split, not about the machine
    "HF_HUB_OFFLINE": "1",
    "TERM": "dumb",
}

TEXTS = {
    "id": "kucing itu tidur di bawah meja makan dan ibu pergi ke pasar pagi ini membeli beras",
    "vi": "con mèo đang ngủ dưới gầm bàn còn mẹ thì đi chợ từ sáng sớm để mua gạo",
    "th": "แมว นอน หลับ อยู่ ใต้ โต๊ะ แม่ ไป ตลาด ตั้งแต่ เช้า เพื่อ ซื้อ ข้าว",
    "en": "the cat sleeps under the table and mother went to the market this morning to buy rice",
}
LANGUAGES = ("id", "vi", "th")

RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "bench",
    "teacher": {"model": "./teacher", "dtype": "fp32"},
    "student": {"model": "./student"},
    # transformers gives a Qwen2 folder its own way of splitting words, so that `auto` would find two tokenizers.
    "verbalizer": {"vocabulary": {"mapping": "shared"}},
    "data": {
        "train": {"rows": {"path": "rows.jsonl", "language": {"column": "language"}, "english": {}}},
        "max_length": 64,
        "on_too_long": "truncate",
    },
    "signals": {
        "sequence": {"weight": 0.7, "beta": 0.1},
        "off_policy": {"weight": 0.4, "divergence": {"type": "jsd", "beta": 0.3}},
        "on_policy": {"weight": 0.6, "temperature": 1.5},
        "sft": {"weight": 0.2},
    },
    "rollouts": {"max_new_tokens": 12},
    "training": {
        "steps": 5, "batch_size": 8, "learning_rate": 2e-4, "precision": "fp32", "log_every": 1, "keep_checkpoints": 5,
    },
}  # fmt: skip

ROWS = 24

GRACE = 15.0
"""Seconds that the others have once a process has failed, as in `dudi_kit.train.processes`."""

_READING = threading.Lock()


class Bench:
    """A folder with models, rows and recipe, and the runs of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "recipe.yaml"
        self.output = folder / "outputs"
        self._planning = threading.Lock()
        warm.import_once(ENVIRONMENT)
        self.recipe.write_text(yaml.safe_dump(RECIPE, sort_keys=False), encoding="utf-8")
        rows = [_row(i, language) for i in range(ROWS // len(LANGUAGES)) for language in LANGUAGES]
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
        foreign = train_tokenizer([TEXTS["en"], TEXTS["id"]] * 3, 330)
        resolve_template(foreign, "chatml", who="teacher")
        _teacher(len(foreign)).save_pretrained(folder / "foreigner")
        foreign.save_pretrained(folder / "foreigner")

    def plan(self, name: str, processes: int = 1, **settings: str) -> RunDir:
        """A run directory that is ready to be trained. settings: recipe paths with `__` for the dots."""
        with self._planning:
            assert not app(self.words("plan", name, processes, **settings), standalone_mode=False)
        return RunDir(self.output / name)

    def words(self, command: str, name: str, processes: int = 1, **settings: str) -> list[str]:
        """The command line after `dudi-kit`. Its paths are relative to where one stands, so `./` is made the folder."""
        here = {path.replace("__", "."): value.replace("./", f"{self.folder}/") for path, value in settings.items()}
        changes = {"name": name, **here}
        options = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
        return [command, str(self.recipe), "--output", str(self.output), "--processes", str(processes), *options]

    def start(
        self, run: RunDir, processes: int = 1, *, resume: bool = False, headless: bool = False, profile: bool = False
    ) -> "Worker":
        module = "tests.train.headless" if headless else "dudi_kit.pipeline.worker"
        words = [module, str(run.path), *["--resume"] * resume, *["--profile"] * profile]
        return Worker(words, processes, run.path.with_name(f"{run.path.name}{'.resumed' if resume else ''}.log"))

    def asked_to_stop(self, run: RunDir, moment: str, step: int, *, resume: bool = False) -> "Worker":
        """It is sent SIGTERM in this moment of this step of its life (`tests.train.signalled`)."""
        words = ["tests.train.signalled", str(run.path), moment, str(step), *["--resume"] * resume]
        return Worker(words, 1, run.path.with_name(f"{run.path.name}.{moment}.log"))

    def killed(self, name: str, place: str, processes: int = 1, **settings: str) -> RunDir:
        """A run that was killed while `place` (below `checkpoints`) was there, and before it was complete."""
        for _ in range(5):  # a busy machine may look away for too long
            run = self.plan(name, processes, **settings)
            self.start(run, processes).kill_when(run.checkpoints / place)
            if (run.checkpoints / place).exists() and not run.final.exists():
                return run
            shutil.rmtree(run.path)
        raise AssertionError(f"{name}: could not be killed in time")

    def train(
        self, name: str, processes: int = 1, *, headless: bool = False, profile: bool = False, **settings: str
    ) -> RunDir:
        """Plan and train. headless: heads are computed beside the models."""
        run = self.plan(name, processes, **settings)
        self.start(run, processes, headless=headless, profile=profile).finish()
        return run

    def launch(self, run: RunDir, processes: int = 1, *, resume: bool = False) -> str:
        """Train by the command line that the plan prints: torchrun, where there are several processes. What it said."""
        words = [sys.executable, *launch_command(processes, str(run.path), resume=resume)]
        ended = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout + ended.stderr


class Worker:
    """The processes of one training run."""

    def __init__(self, words: list[str], processes: int, log: Path) -> None:
        self.log = log
        with _READING:  # starting one looks after those that have ended
            self.ranks = warm.start(words, processes, log, ENVIRONMENT)

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait(self) -> int:
        """The exit code of the first that fails, after which the others have a while to end; 0 if none does."""
        give_up, failed = time.monotonic() + 300, None
        try:
            while running := [rank for rank in self.ranks if _code(rank) is None]:
                if failed is None and (codes := [_code(rank) for rank in self.ranks if _code(rank)]):
                    failed, give_up = codes[0], time.monotonic() + GRACE
                if time.monotonic() > give_up:
                    assert failed is not None, self.said
                    break
                connection.wait([rank.sentinel for rank in running], timeout=1)
            return failed or next((code for code in map(_code, self.ranks) if code), 0)
        finally:
            self.kill()

    def finish(self) -> str:
        """Wait for the end, which must be a good one; what it said."""
        assert self.wait() == 0, self.said
        return self.said

    def kill_when(self, place: Path) -> None:
        """SIGKILL to all processes as soon as a file or folder is there."""
        give_up = time.monotonic() + 300
        while not place.exists():
            assert all(_code(rank) is None for rank in self.ranks), self.said
            assert time.monotonic() < give_up, self.said
            time.sleep(0.0005)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all of them at once."""
        for rank in self.ranks:
            if _code(rank) is None:
                rank.kill()
        for rank in self.ranks:
            connection.wait([rank.sentinel])
            _code(rank)


def _code(rank: BaseProcess) -> int | None:
    """Its exit code. Threads that read one at once would find an empty pipe."""
    with _READING:
        return rank.exitcode


def metrics(run: RunDir) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without what differs from start to start."""
    lines = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    return [
        {key: value for key, value in line.items() if key not in {"seconds", "tokens_per_second", "system"}}
        for line in lines
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
    words, english = _turned(TEXTS[language], i), _turned(TEXTS["en"], i)
    return {
        "prompt": " ".join(words[: 1 + 2 * i % 7]),
        "response": " ".join(words[-(1 + 3 * i % 11) :]),
        "language": language,
        "english_prompt": " ".join(english[: 1 + i % 5]),
        "english_response": " ".join(english[-(1 + i % 4) :]),
    }


def _turned(text: str, i: int) -> list[str]:
    words = text.split()
    return words[i:] + words[:i]


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
