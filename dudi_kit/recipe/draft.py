"""A first recipe, written for somebody: from what is wished to commented YAML that validates.

Only what the reader will want to change is written, with the reason beside it; the rest keeps its default.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dudi_kit.recipe.scalars import read_scalar

SCRATCH = "scratch"
BUILTIN = "builtin"
PLAIN = re.compile(r"[A-Za-z0-9./_][\w./@+-]*")


class Model(NamedTuple):
    """A model as it is named on the command line."""

    name: str
    """Folder relative to the recipe, hub name, recipe file, or `scratch`."""

    revision: str | None = None

    @property
    def is_recipe(self) -> bool:
        """Trained by another recipe."""
        return self.name.endswith((".yaml", ".yml"))

    @property
    def is_folder(self) -> bool:
        """On this disk."""
        return self.name.startswith(("./", "../", "/", "~"))


class Columns(NamedTuple):
    """Which columns of a data file hold what; None where there is no such column."""

    prompt: str | None = "prompt"
    response: str | None = "response"
    messages: str | None = None
    language: str | None = None
    english_prompt: str | None = None
    english_response: str | None = None


class Rows(NamedTuple):
    """The training rows."""

    kind: str
    """`builtin`, `path` or `hub`."""

    name: str = "train"
    revision: str | None = None
    columns: Columns = Columns()


class Machine(NamedTuple):
    """What a recipe has to know of the hardware."""

    name: str
    devices: int
    memory_gb: int | None
    """Of one device; None where it is not known."""

    is_cpu: bool


@dataclass(frozen=True)
class Wishes:
    """All that `init` asks."""

    name: str
    teacher: Model
    student: Model
    languages: Sequence[str]
    rows: Rows
    machine: Machine
    schema: str
    """Path of the JSON schema, relative to the recipe."""


def draft(wishes: Wishes) -> str:
    """The recipe's text."""
    sections = (_head, _teacher, _student, _data, _verbalizer, _signals, _training, _evaluation)
    return "\n".join("\n".join(section(wishes)) + "\n" for section in sections)


def machine(name: str) -> Machine:
    """What a name such as 8xH100-80G or cpu-24G says. Anything else is taken as one GPU of unknown size."""
    found = re.fullmatch(r"(?:(\d{1,4})\s*[x×]\s*)?(.*?)(?:[-_ ]?(\d{1,4})\s*Gi?B?)?", name.strip(), re.IGNORECASE)
    assert found is not None, "every part may be missing"
    is_cpu = (found[2] or "").lower().startswith("cpu")
    return Machine(name.strip(), max(1, int(found[1] or 1)), int(found[3]) if found[3] else None, is_cpu)


def text(value: str) -> str:
    """A text as YAML, in quotes where it needs them."""
    plain = PLAIN.fullmatch(value) and isinstance(read_scalar(value), str)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _head(wishes: Wishes) -> Iterator[str]:
    yield f"# yaml-language-server: $schema={wishes.schema}"
    yield "# Written by `dudi-kit init`: a start to change. What is not here has a default, which your editor shows."
    yield "#   dudi-kit validate, plan and run take this file; every value can be set there too: --training.seed=1"
    yield "version: 1"
    yield f"name: {text(wishes.name)}   # the run goes to outputs/{wishes.name}"


def _teacher(wishes: Wishes) -> Iterator[str]:
    yield "# The model that teaches."
    yield "teacher:"
    if wishes.teacher.is_recipe:
        yield f"  recipe: {text(wishes.teacher.name)}   # trained first where it is missing, then reused"
        return
    yield from _model(wishes.teacher)
    yield "  dtype: bf16"


def _student(wishes: Wishes) -> Iterator[str]:
    yield "# The model that learns."
    yield "student:"
    if wishes.student.name == SCRATCH:
        shape = (
            "hidden_size: 128, layers: 3, heads: 4"
            if wishes.machine.is_cpu
            else "hidden_size: 512, layers: 8, heads: 8"
        )
        yield "  init: scratch   # random weights, in the teacher's vocabulary"
        yield f"  architecture: {{{shape}, context: {_max_length(wishes)}}}"
        yield "  tokenizer: {from: teacher}"
    elif wishes.student.is_recipe:
        yield "  init: recipe   # trained first where it is missing, then reused"
        yield f"  recipe: {text(wishes.student.name)}"
        return
    else:
        yield from _model(wishes.student)
    yield "  cold_start: {epochs: 1}   # plain SFT first, as in the paper; leave it out for a student that had its SFT"


def _model(model: Model) -> Iterator[str]:
    yield f"  model: {text(model.name)}"
    if model.revision is not None:
        yield f"  revision: {text(model.revision)}"
    elif not model.is_folder:
        yield "  # Without a revision you get whatever the hub calls by this name that day, and `validate` warns. Take"
        yield f"  # the newest commit from https://huggingface.co/{model.name}/commits/main and write it here:"
        yield "  # revision: <commit>"


def _data(wishes: Wishes) -> Iterator[str]:
    rows, codes = wishes.rows, ", ".join(wishes.languages)
    yield "data:"
    yield "  train:"
    if rows.kind == BUILTIN:
        yield "    # Sentiment, topics, questions and translations that ship with dudi-kit, to try things out. For data"
        yield "    # of your own: `dudi-kit init --data rows.jsonl`."
        yield f"    corpus: {{builtin: train, languages: [{codes}]}}"
        yield "  held_out:   # never trained on; bits per byte are measured here"
        yield f"    corpus: {{builtin: test, languages: [{codes}]}}"
    else:
        yield "    mine:"
        yield from (f"      {line}" for line in _own_rows(wishes))
        yield "  # Rows that are never trained on, to measure bits per byte; they are written like those of `train`:"
        yield "  # held_out:"
        yield "  #   mine: {path: test.jsonl, …}"
    yield f"  max_length: {_max_length(wishes)}   # prompt + response, in the student's tokens"
    yield "  on_too_long: skip   # longer rows are left out and counted; `error` stops, `truncate` cuts their ends"


def _own_rows(wishes: Wishes) -> Iterator[str]:
    rows, columns = wishes.rows, wishes.rows.columns
    yield f"{rows.kind}: {text(rows.name)}"
    if rows.kind == "hub":
        moving = "" if rows.revision else "   # a branch, which moves: write the newest commit here"
        yield f"revision: {text(rows.revision or 'main')}{moving}"
    if columns.language is not None:
        yield f"language: {{column: {text(columns.language)}}}   # its codes: en id jv km lo ms my su ta th tl vi zh"
        yield f"languages: [{', '.join(wishes.languages)}]   # rows of others are left out and counted"
    elif "{language}" in rows.name:
        yield f"languages: [{', '.join(wishes.languages)}]   # what {{language}} stands for"
    else:
        yield f"language: {wishes.languages[0]}   # of every row; or {{column: …}}, where a column says it"
    yield _format(columns)
    if columns.english_prompt and columns.english_response:
        pair = f"prompt: {text(columns.english_prompt)}, response: {text(columns.english_response)}"
        yield f"english: {{format: {{{pair}}}}}   # the same row in English, for the verbalizer"


def _format(columns: Columns) -> str:
    if columns.messages is not None:
        return f"format: {{type: chat, messages: {text(columns.messages)}}}"
    return f"format: {{prompt: {text(columns.prompt or 'prompt')}, response: {text(columns.response or 'response')}}}"


def _verbalizer(wishes: Wishes) -> Iterator[str]:
    columns = wishes.rows.columns
    has_english = wishes.rows.kind == BUILTIN or (columns.english_prompt and columns.english_response)
    yield "# What the teacher, and never the student, reads before a prompt: the task shown with its answer."
    yield "verbalizer:"
    if has_english:
        yield "  demonstration: {source: parallel, languages: [same, en]}   # in the row's language and in English"
    else:
        yield "  # Your rows have no English version, which is the better half of a demonstration. If you can get one,"
        yield "  # put it into two more columns, name them under `english`, and write languages: [same, en]."
        yield "  demonstration: {source: parallel, languages: [same]}"


def _signals(wishes: Wishes) -> Iterator[str]:
    yield "# The objective; a signal of weight 0 is off and costs nothing."
    yield "signals:"
    yield "  sequence: {weight: 0.1}     # prefer the reference response to the student's own sample"
    if wishes.student.name == SCRATCH:
        yield "  # A student from random weights has few modes to seek yet, and learns faster from all that the teacher"
        yield "  # says: forward KL."
        yield "  off_policy: {weight: 1, divergence: {type: forward_kl}}"
        yield "  on_policy: {weight: 0.25}   # follow the teacher on the student's own sample"
    else:
        yield "  off_policy: {weight: 0.5}   # follow the teacher on the reference response"
        yield "  on_policy: {weight: 0.5}    # follow the teacher on the student's own sample"
    yield ""
    yield f"rollouts: {{max_new_tokens: {64 if wishes.machine.is_cpu else 128}}}   # longest sample of the student"


def _training(wishes: Wishes) -> Iterator[str]:
    settings = training_settings(wishes.machine, from_scratch=wishes.student.name == SCRATCH)
    devices = wishes.machine.devices
    processes = "" if devices == 1 else f" --processes {devices}"
    yield f"# For {wishes.machine.name}: `dudi-kit run{processes}`. Out of memory? Lower micro_batch_size first: it"
    yield "# changes no result, since gradients are summed up to batch_size."
    yield "training:"
    yield from (f"  {key}: {value}" for key, value in settings.items())
    yield ""
    stage = 2 if devices > 1 else 0
    why = "optimizer and gradients are spread over the processes" if stage else "nothing to spread over one process"
    yield f"deepspeed: {{stage: {stage}}}   # {why}"


def training_settings(machine: Machine, *, from_scratch: bool) -> Mapping[str, str | int]:
    """`training` for a machine. A batch is a multiple of what all processes take at once."""
    micro = 2 if machine.is_cpu else _micro_batch(machine.memory_gb)
    at_once = machine.devices * micro
    batch = at_once * max(1, round(32 / at_once))
    return {
        "epochs": 1,
        "batch_size": batch,
        "micro_batch_size": micro,
        "learning_rate": "1e-3" if from_scratch else "1e-5",
        "precision": "fp32" if machine.is_cpu else "bf16",
        "checkpoint_every": 200,
    }


def _micro_batch(memory_gb: int | None) -> int:
    """Rows that fit beside a teacher of a few billion parameters, by a cautious rule of thumb; `plan` estimates."""
    if memory_gb is None or memory_gb < 24:
        return 1
    return 2 if memory_gb < 40 else 4 if memory_gb < 80 else 8


def _max_length(wishes: Wishes) -> int:
    return 512 if wishes.machine.is_cpu or wishes.rows.kind == BUILTIN else 1024


def _evaluation(wishes: Wishes) -> Iterator[str]:
    if wishes.rows.kind != BUILTIN:
        yield "# Tasks whose answers are scored for teacher, student before and student after. Their rows are written"
        yield "# like those of `data.train`:"
        yield "# evaluation:"
        yield "#   tasks:"
        yield "#     topic: {data: {path: test.jsonl, …}, metrics: [accuracy, macro_f1], labels: […]}"
        return
    data = f"builtin: test, languages: [{', '.join(wishes.languages)}]"
    yield "evaluation:"
    yield "  tasks:"
    for task, metric in (("sentiment", "accuracy"), ("topic", "accuracy"), ("translate", "chrf")):
        yield f"    {task}: {{data: {{{data}, where: {{task: {task}}}}}, metrics: [{metric}], max_new_tokens: 40}}"
