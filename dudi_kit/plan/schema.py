"""The plan as data: what `plan` writes and the training processes read. No part of it is decided twice."""

from typing import Any, Literal

from pydantic import Field, ValidationError

from dudi_kit.errors import RunDirectoryError
from dudi_kit.plan.layout import RunDir, write_json
from dudi_kit.recipe.schema.adapters import Quantization
from dudi_kit.recipe.schema.base import Strict
from dudi_kit.recipe.schema.models import Dtype, MemorySize, Placement


class ModelSource(Strict):
    """Where a model's weights, tokenizer and template come from."""

    path: str
    """Folder or hub name."""

    dtype: Dtype
    quantization: Quantization = "none"
    """Of the linear layers, once they are loaded. Of the teacher: a student's is its adapter's."""

    placement: Placement = "device"
    device_memory: MemorySize | None = None

    revision: str | None = None
    gguf_file: str | None = None
    tokenizer: str | None = None
    """Where the tokenizer is not with the weights."""

    tokenizer_revision: str | None = None
    chat_template: str | None = None
    """As in the recipe; None is the tokenizer's own."""


class TaughtShare(Strict):
    """Response tokens of the student in the training rows of a language, by what the teacher can say of them."""

    full: float
    """Share with a distribution of the next piece."""

    span: float
    """Share inside spans, of which the likelihoods are compared."""

    none: float
    """Share on which the teacher has no word."""


class PlannedVocabulary(Strict):
    """The decided vocabulary mapping."""

    mapping: Literal["shared", "remap", "align"]
    size: int
    """Pieces that both sides have."""

    student_rows: int
    """Embedding rows of the student."""

    reason: str
    meets: Literal["exact", "project"]
    overrides: list[tuple[int, int]]
    """(teacher piece, student piece) of the recipe's overrides."""

    coverage: dict[str, TaughtShare]
    """By language."""


class PlannedLabels(Strict):
    """Rows of one dataset, set and language whose teacher's mass on label words moves."""

    dataset: str
    set: str
    language: str
    rows: int
    targets: dict[str, str]
    """Label → the word that mass on words of other languages moves to."""

    ambiguous: list[str]
    """Words of other languages that stay: their first piece does not tell the label."""

    unsayable: list[str]
    """Words of other languages that the teacher's tokenizer can't write."""


class PrunedLanguage(Strict):
    """What cutting the vocabulary means for one language. A text is a prompt or a response, each counted once."""

    texts: int
    """Of the training rows and of `extra`: those that the pieces were chosen by."""

    same: int
    """Those of them that are cut into the same pieces as before."""

    tokens_before: int
    tokens_after: int
    other_texts: int
    """Texts of the held-out rows and tasks, by which nothing was chosen."""

    other_same: int
    other_tokens_before: int
    other_tokens_after: int
    pieces: int
    """That its texts need, with what those are merged from."""

    own_pieces: int
    """Of these, those that no other language's texts need."""


class PlannedPruning(Strict):
    """What a student that is cut from a bigger model keeps of it."""

    model: str
    """Folder or hub name of the bigger model."""

    layers: list[int]
    """That stay, counted from 0."""

    layers_before: int
    rows_before: int
    rows_after: int
    """Rows of the embedding, padding included."""

    common_pieces: int
    """Bytes, special pieces and letters that stay, and that no text uses."""

    parameters_before: int
    parameters_after: int
    embeddings_before: int
    embeddings_after: int
    piece_parameters: int
    """Parameters that one piece costs, in both embeddings."""

    languages: dict[str, PrunedLanguage]
    """Empty where the whole vocabulary stays."""


class LanguageShare(Strict):
    """Training rows of one language."""

    rows: int
    tokens: int
    """Prompt and response, in the student's tokens."""

    prompt_tokens: int
    response_tokens: int
    teacher_prompt_tokens: int
    """The longer of the prompts that the teacher reads of each row, demonstration included, in its own tokens."""

    rows_per_epoch: int
    """After mixing by weight and temperature."""


class StageMemory(Strict):
    """Memory of one training process under one ZeRO stage, in bytes."""

    stage: int
    peak_bytes: int
    peak_phase: str
    phases: dict[str, dict[str, int]]
    """What is alive at once: phase → part → bytes."""


class Remedy(Strict):
    """A field with another value, and the peak that it alone would bring."""

    field: str
    now: str
    then: str
    peak_bytes: int


class PlannedMemory(Strict):
    """Memory of the training processes, which all need the same, against what the hardware has."""

    hardware: str
    nodes: int
    limit_bytes: int
    """For one process."""

    stage: int
    """ZeRO stage that the recipe asks for."""

    stages: list[StageMemory]
    host_bytes: int
    """Main memory of one machine while all its processes load their models."""

    offloaded_bytes: int = 0
    """Main memory of one machine (or of its disk) for what its processes offload while they train."""

    remedies: list[Remedy]
    """The best first."""

    @property
    def chosen(self) -> StageMemory:
        """That of the recipe's own stage."""
        return next(made for made in self.stages if made.stage == self.stage)

    @property
    def fits(self) -> bool:
        """The estimate is within the limit."""
        return self.chosen.peak_bytes <= self.limit_bytes


class PlannedDisk(Strict):
    """Bytes that training writes at most; answers of the evaluation, some kilobytes a row, come on top."""

    checkpoint_bytes: int
    """One, optimizer state included."""

    checkpoints: int
    """Those that are kept, and the one that is being written."""

    final_bytes: int
    pruned_bytes: int = 0
    """A student that is cut from a bigger model, before its first step."""

    tokenizer_bytes: int
    cache_bytes: int = 0
    """Answers of frozen models that are yet to be written, beside the run directory."""

    total_bytes: int


class PlannedStore(Strict):
    """Answers of one frozen model on disk."""

    who: Literal["teacher", "reference"]
    subject: dict[str, Any]
    """All that they depend on besides the text."""

    trained: str | None = None
    """Folder of its weights, where a run of ours trains them: then their content is part of the subject, too."""

    folder: str
    """Of weights that are yet to be trained it will be another one."""

    rows: int
    """That are asked for."""

    answered: int
    """Those of them whose answer is there already."""

    bytes: int
    """Of all of them, estimated."""


class PlannedCache(Strict):
    """What frozen models are asked once."""

    teacher: PlannedStore | None
    """Of the off-policy term."""

    reference: PlannedStore | None
    """log π_ref(y|x) of each row."""

    teacher_leaves: bool
    """The teacher is not needed once all rows are answered: nothing else asks it."""

    @property
    def needs_no_teacher(self) -> bool:
        """All is answered before the first step."""
        return self.teacher is not None and self.teacher_leaves and self.teacher.answered == self.teacher.rows


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
    labels: list[PlannedLabels] = Field(default=[])
    """What the label words do, where rows declare their set."""

    pruning: PlannedPruning | None = None
    """Where the student is cut from a bigger model, or starts from one that is."""

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

    trained_parameters: int | None = None
    """Of its adapter, which come on top; None: all of its own are trained."""

    teacher_parameters: int | None

    cache: PlannedCache | None = None
    """What frozen models are asked once; None: nothing is kept."""

    memory: PlannedMemory
    disk: PlannedDisk
    deepspeed: dict[str, Any]
    launch: list[str]
    """The command that starts the training processes of one machine."""

    launchers: dict[str, str]
    """The same for other launchers, and for several machines, as lines of a shell."""

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
