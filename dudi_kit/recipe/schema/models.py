"""`teacher` and `student`: where the two models come from."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema

from dudi_kit.recipe.schema.adapters import Lora, Quantization
from dudi_kit.recipe.schema.base import Count, Name, Positive, Strict, Text, tag_by, tag_by_key, tag_by_shape
from dudi_kit.recipe.schema.cache import NoCache, TeacherCache
from dudi_kit.recipe.schema.data import Dataset
from dudi_kit.recipe.schema.training import Schedule

Dtype = Literal["fp32", "bf16"]
Placement = Literal["device", "offload", "sharded"]
ChatTemplate = Annotated[
    Text, WithJsonSchema({"type": "string", "pattern": r"^(chatml|plain|.*\.jinja)$", "examples": ["chatml", "plain"]})
]
"""A name that we know, or a file; `checks.models` says it in words."""


def memory_size(text: str) -> str:
    """The text itself, or a ValueError if it is no size."""
    if re.fullmatch(SIZE, text):
        return text
    raise ValueError("a whole number of MiB or GiB expected, such as '20GiB'")


SIZE = r"[1-9][0-9]{0,6}(MiB|GiB)"
MemorySize = Annotated[
    str, AfterValidator(memory_size), WithJsonSchema({"type": "string", "pattern": f"^{SIZE}$", "examples": ["20GiB"]})
]
"""A whole number of MiB or GiB."""

Width = Annotated[int, Field(ge=1, le=1_000_000)]
Family = Literal["llama", "qwen2", "qwen3", "gemma3"]


class Pretrained(Strict):
    """Weights that exist: a transformers folder, a hub name or a GGUF file."""

    VARIANT: ClassVar[str] = "model"

    model: Text
    """A folder (`./…`, `/…`, or one that lies beside the recipe) or a hub name (`owner/name`)."""

    revision: Text | None = None
    """Commit or tag of the hub model. Pin it: a moving branch makes a recipe irreproducible."""

    gguf_file: Text | None = None
    """File name of a GGUF inside `model`; its weights are unpacked to `dtype`."""

    tokenizer: Text | None = None
    """Folder or hub name of the tokenizer, where it does not lie with the weights."""

    tokenizer_revision: Text | None = None
    """Commit or tag of a `tokenizer` from the hub."""

    chat_template: ChatTemplate | None = None
    """`chatml`, `plain`, or a Jinja file; default: the tokenizer's own template."""


class _Teacher(Strict):
    quantization: Quantization = "none"
    """Packs the teacher's linear layers with bitsandbytes; embeddings, norms and head stay in bf16. Of a layer's memory
    in bf16 `int8` takes half and `nf4` little over a quarter; neither saves time. KL from fp32 on SIB-200, in nats a
    token: bf16 0.009, int8 0.017, nf4 0.13 (Qwen2.5-Coder 0.5B); 0.004, 0.047, 0.56 (Gemma 3 270M, too small for nf4).
    Compare the teacher's scores with and without. Needs `dtype: bf16`."""

    placement: Placement = "device"
    """Where its weights lie: `device`, whole on the device of each process; `offload`, there up to `device_memory`, and
    the other layers in main memory (on a machine without GPU: on disk), fetched in each pass; `sharded`, shared out
    over the processes and gathered layer by layer; where one process asks it alone, spread over the GPUs."""

    device_memory: MemorySize | None = None
    """With `offload`: the most that its weights take of each device, such as `20GiB`; room for the largest layer."""

    cache: TeacherCache = NoCache()
    """What is kept on disk of its answers to `signals.off_policy`, so that it is asked for each row once: later epochs,
    other runs and other ranks read them. Where no other signal asks it, it leaves memory once all rows are answered.
    Kept in `.cache` beside the run directories; `dudi-kit cache` fills it ahead. Any other text, prompt, revision or
    tokenizer is asked anew; the temperature is applied when it is read."""


class TeacherModel(_Teacher, Pretrained):
    """A teacher with weights of its own."""

    dtype: Dtype = "bf16"
    """Precision in which the frozen teacher is held; with `quantization`, that of what is not packed."""


class TeacherRecipe(_Teacher):
    """A teacher that another recipe trains; built first and reused as long as its lock hash is the same."""

    VARIANT: ClassVar[str] = "recipe"

    recipe: Text
    """Path of the recipe, relative to this one."""

    dtype: Dtype = "fp32"
    """Precision in which the frozen teacher is held."""


Teacher = Annotated[
    Annotated[TeacherModel, Tag("model")] | Annotated[TeacherRecipe, Tag("recipe")],
    Discriminator(tag_by_key({"recipe": "recipe"}, default="model")),
]


class Architecture(Strict):
    """Shape of a student that starts from random weights."""

    family: Family = "llama"
    """Model family of transformers that implements it."""

    hidden_size: Width = 256
    """Width of the residual stream."""

    layers: Annotated[int, Field(ge=1, le=1000)] = 4
    """Transformer blocks."""

    heads: Width = 4
    """Attention heads; `hidden_size` is an even multiple of them."""

    kv_heads: Width | None = None
    """Heads that keys and values are shared over; default: `heads`."""

    intermediate_size: Width | None = None
    """Width of the feed-forward part; default: 8/3 of `hidden_size`, rounded up to a multiple of 16."""

    context: Count = 1024
    """Longest input in tokens."""

    tie_embeddings: bool = True
    """Input and output embeddings are one matrix."""


class NewTokenizer(Strict):
    """A byte-level BPE trained on the recipe's own training data."""

    VARIANT: ClassVar[str] = "new"

    vocabulary_size: Annotated[int, Field(ge=300, le=1_000_000)] = 8000
    """Pieces, the 256 bytes and the special ones included."""


class GivenTokenizer(Strict):
    """A tokenizer that exists."""

    VARIANT: ClassVar[str] = "given"

    source: Text = Field(alias="from")
    """`teacher`, or a folder or hub name."""

    revision: Text | None = None
    """Commit or tag, where it comes from the hub."""


Tokenizer = Annotated[
    Annotated[NewTokenizer, Tag("new")] | Annotated[GivenTokenizer, Tag("given")],
    Discriminator(tag_by_key({"from": "given"}, default="new")),
]


class ColdStart(Strict):
    """Plain SFT before distillation, on the recipe's own data, a run of its own. Its student is π_ref and 'before'."""

    epochs: Positive | None = None
    """Passes over the training rows; give this or `steps`. Default: one epoch."""

    steps: Count | None = None
    """Optimizer steps; give this or `epochs`."""

    learning_rate: Positive | None = None
    """Peak learning rate; default: that of `training`."""

    schedule: Schedule | None = None
    """Course of the learning rate; default: that of `training`."""


class _Student(Strict):
    cold_start: ColdStart | None = None
    """Plain SFT first, as in the paper; left out, the student given is taken as already cold-started."""

    adapter: Lora | None = None
    """Trains an adapter instead of the weights; a cold start gets one too, which is merged before the next begins."""


class PretrainedStudent(_Student, Pretrained):
    """A student that starts from weights that exist."""

    init: Literal["pretrained"] = "pretrained"


class ScratchStudent(_Student):
    """A student that starts from random weights."""

    init: Literal["scratch"]
    architecture: Architecture = Architecture()
    tokenizer: Tokenizer = NewTokenizer()
    """A new one, or one that exists."""

    chat_template: ChatTemplate | None = None
    """`chatml`, `plain`, or a Jinja file; default: that of the tokenizer, or `chatml` for a new tokenizer."""


class TrimmedVocabulary(Strict):
    """The pieces that texts use, with the pieces that those are merged from.

    Every byte, every special piece and every letter of the scripts that occur stay as well, so that any text can be
    written. The texts are prompts and responses of the training rows and of `extra`; held-out rows and tasks are not
    looked at, since the student must not be made for the texts that it is judged on.
    """

    extra: dict[Name, Dataset] = Field(default={})
    """More texts whose pieces stay, by a name of your own: what the student will read that the training rows lack."""

    min_count: Count = 1
    """Times that a piece must occur in the texts. From 2 on some texts are cut into other pieces than before."""


def _only_all(text: str) -> str:
    if text == "all":
        return text
    raise ValueError("'all', a number of layers or a list of them expected; as in 'layers: 6' or 'layers: [0, 2, 5]'")


def _layers_tag(value: Any) -> str:
    return "list" if isinstance(value, list | tuple) else "word" if isinstance(value, str) else "number"


Layer = Annotated[int, Field(ge=0, lt=1000)]
Layers = Annotated[
    Annotated[str, AfterValidator(_only_all), WithJsonSchema({"const": "all"}), Tag("word")]
    | Annotated[int, Field(ge=1, le=1000), Tag("number")]
    | Annotated[list[Layer], Field(min_length=1), Tag("list")],
    Discriminator(_layers_tag),
]
Pieces = Annotated[
    Annotated[Literal["all", "corpus"], Tag("plain")] | Annotated[TrimmedVocabulary, Tag("mapping")],
    Discriminator(tag_by_shape),
]


class PrunedStudent(_Student, Pretrained):
    """A student that is cut from a bigger model: some of its layers, and the part of its vocabulary that is used."""

    init: Literal["prune"]
    layers: Layers = "all"
    """Layers that stay: `all`, a number of them, evenly spaced with the first and the last among them, or a list as in
    `[0, 2, 5]`, counted from 0."""

    vocabulary: Pieces = "corpus"
    """Pieces that stay: `all`, or those that the training rows use; `corpus` is short for a section with settings."""


class RecipeStudent(_Student):
    """A student that another recipe trains, such as a cold start; built first and reused by lock hash."""

    init: Literal["recipe"]
    recipe: Text
    """Path of the recipe, relative to this one."""


Student = Annotated[
    Annotated[PretrainedStudent, Tag("pretrained")]
    | Annotated[ScratchStudent, Tag("scratch")]
    | Annotated[PrunedStudent, Tag("prune")]
    | Annotated[RecipeStudent, Tag("recipe")],
    Discriminator(tag_by("init", default="pretrained")),
]
