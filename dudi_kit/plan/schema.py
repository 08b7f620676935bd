"""The plan as data: what `plan` writes and the training processes read. No part of it is decided twice."""

from typing import Any, Literal

from pydantic import ValidationError

from dudi_kit.errors import RunDirectoryError
from dudi_kit.plan.layout import RunDir, write_json
from dudi_kit.recipe.schema.base import Strict
from dudi_kit.recipe.schema.models import Dtype, Quantization


class ModelSource(Strict):
    """Where a model's weights, tokenizer and template come from."""

    path: str
    """Folder or hub name."""

    dtype: Dtype
    quantization: Quantization = "none"
    """Of the linear layers, once they are loaded; only teachers have one."""

    revision: str | None = None
    gguf_file: str | None = None
    tokenizer: str | None = None
    """Where the tokenizer is not with the weights."""

    tokenizer_revision: str | None = None
    chat_template: str | None = None
    """As in the recipe; None is the tokenizer's own."""


class PlannedVocabulary(Strict):
    """The decided vocabulary mapping."""

    mapping: Literal["shared"]
    size: int
    reason: str


class LanguageShare(Strict):
    """Training rows of one language."""

    rows: int
    tokens: int
    """Prompt and response, in the student's tokens."""

    rows_per_epoch: int
    """After mixing by weight and temperature."""


class Plan(Strict):
    """All that is decided before a weight is loaded."""

    version: Literal[1] = 1
    name: str
    lock: str
    """Hash of all that the result depends on."""

    teacher: ModelSource | None
    """The recipe's teacher; it is asked in training where there is a `vocabulary`, too."""

    start: ModelSource | None
    """The weights that the student starts from; None: random ones."""

    vocabulary: PlannedVocabulary | None
    languages: dict[str, LanguageShare]
    teacher_room: int | None
    """Longest teacher prompt in tokens, demonstration included."""

    processes: int
    batch_size: int
    micro_batch_size: int
    accumulation: int
    rows_per_epoch: int
    steps: int
    parameters: int
    """Of the student."""

    teacher_parameters: int | None

    checkpoint_bytes: int
    """Estimated size of one checkpoint, optimizer state included."""

    deepspeed: dict[str, Any]
    launch: list[str]
    """The command that starts the training processes."""

    outside: list[str]
    """Files and folders that the recipe reads outside its own folder."""

    unasked: int = 0
    """Texts that the teacher is yet to be asked for; training begins at 0."""

    notices: list[str]
    """What was decided for the user, and what was left out."""


def write_plan(run: RunDir, plan: Plan) -> None:
    """Write plan.json and, for people and other tools, ds_config.json."""
    write_json(run.plan, plan.model_dump(mode="json"))
    write_json(run.ds_config, plan.deepspeed)


def read_plan(run: RunDir) -> Plan:
    """The plan of a run directory; RunDirectoryError where there is none that this version reads."""
    try:
        return Plan.model_validate_json(run.plan.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise RunDirectoryError(
            f"{run.plan} is missing or is no plan of this version of dudi-kit; start again with --overwrite."
        ) from error
