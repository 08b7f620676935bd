"""Recipes, rows and model folders as small as they get, for tests that plan and run. Nothing is downloaded."""

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from transformers import LlamaConfig
from typer.testing import CliRunner, Result

from dudi_kit.cli import app
from dudi_kit.data.chat import resolve_template
from dudi_kit.data.tokenizers import train_tokenizer

SENTENCES = {
    "id": ("Di mana kucing itu?", "Kucing itu di bawah meja."),
    "th": ("แมวอยู่ที่ไหน", "แมวอยู่ใต้โต๊ะ"),
    "en": ("Where is the cat?", "The cat is under the table."),
}
ROWS: list[dict[str, str]] = [
    {
        "prompt": f"{prompt} {number}",
        "response": f"{response} {number}",
        "language": language,
        "english_prompt": f"{SENTENCES['en'][0]} {number}",
        "english_response": f"{SENTENCES['en'][1]} {number}",
    }
    for number in range(4)
    for language, (prompt, response) in SENTENCES.items()
]

DATASET = {"path": "rows.jsonl", "language": {"column": "language"}, "english": {}}
ARCHITECTURE = {"hidden_size": 16, "layers": 1, "heads": 2, "context": 512}
SFT_ALONE = {"sequence": {"weight": 0}, "off_policy": {"weight": 0}, "on_policy": {"weight": 0}, "sft": {"weight": 1}}
TRAINING = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "precision": "fp32", "log_every": 1}

TEACHER: dict[str, Any] = {
    "version": 1,
    "name": "teacher",
    "student": {"init": "scratch", "architecture": ARCHITECTURE, "tokenizer": {"vocabulary_size": 400}},
    "data": {"train": {"rows": DATASET}, "max_length": 256},
    "signals": SFT_ALONE,
    "training": TRAINING,
}
STUDENT: dict[str, Any] = {
    "version": 1,
    "name": "student",
    "teacher": {"recipe": "teacher.yaml"},
    "student": {
        "init": "scratch",
        "architecture": ARCHITECTURE,
        "tokenizer": {"from": "teacher"},
        "cold_start": {"steps": 2},
    },
    "data": {"train": {"rows": DATASET}, "max_length": 256},
    "rollouts": {"max_new_tokens": 8},
    "training": TRAINING,
}
"""The whole chain: a teacher recipe, a cold start, all three signals and the verbalizer, which are defaults."""


def changed(recipe: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with other values. changes: paths with `__` for the dots; None removes a key."""
    recipe = copy.deepcopy(recipe)
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = recipe
        for key in parents:
            section = section.setdefault(key, {})
        if value is None:
            section.pop(last, None)
        else:
            section[last] = value
    return recipe


def write_recipe(path: Path, recipe: dict[str, Any]) -> Path:
    unshared = json.loads(json.dumps(recipe))  # or yaml would write anchors
    path.write_text(yaml.safe_dump(unshared, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_chain(folder: Path, **changes: Any) -> Path:
    """teacher.yaml, student.yaml (with changes) and rows.jsonl; the path of student.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "rows.jsonl", ROWS)
    write_recipe(folder / "teacher.yaml", TEACHER)
    return write_recipe(folder / "student.yaml", changed(STUDENT, **changes))


def tokenizer(words: list[str] | None = None) -> Any:
    """A byte-level BPE with ChatML, trained on the rows or on other words."""
    made = train_tokenizer(words or [text for row in ROWS for text in row.values()], 400)
    resolve_template(made, "chatml", who="student")
    return made


def write_shell(folder: Path, made: Any, *, rows: int | None = None, context: int = 512, width: int = 16) -> Path:
    """A model folder with all that a plan may look at; its weights are a name only."""
    config = LlamaConfig(
        vocab_size=rows or len(made), hidden_size=width, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=context,
    )  # fmt: skip
    config.save_pretrained(folder)
    (folder / "model.safetensors").touch()
    made.save_pretrained(folder)
    return folder


def call(*arguments: object) -> Result:
    """The command line, in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
