"""Rules about `teacher` and `student`."""

import math
import os
import re
from collections.abc import Iterator
from pathlib import PurePath

from dudi_kit.recipe.checks.complaint import MOVING, Complaint, Rule, written
from dudi_kit.recipe.derive import COLD_START_SUFFIX, tokenizer_is_teachers
from dudi_kit.recipe.diagnostics import Path, listed, nearest
from dudi_kit.recipe.paths import HUB_NAME
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.models import GivenTokenizer, NewTokenizer, Pretrained, PrunedStudent, ScratchStudent

CHAT_TEMPLATES = ("chatml", "plain")
LONGEST_NAME = 100


def token_signals_need_a_teacher(recipe: Recipe) -> Iterator[Complaint]:
    """The divergence is one from the teacher."""
    weights = {name: getattr(recipe.signals, name).weight for name in ("off_policy", "on_policy")}
    active = [f"signals.{name}" for name, weight in weights.items() if weight > 0]
    if recipe.teacher is None and active:
        verb = "s" if len(active) == 1 else ""
        message = f"{listed(active).replace(' or ', ' and ')} need{verb} a teacher, and there is none"
        hint = f"add 'teacher: {{model: …}}', or set the weight to 0: {', '.join(f'{name}.weight' for name in active)}"
        needs = tuple(("signals", name, "weight") for name in weights)
        yield Complaint(("teacher",), "needs-teacher", message, hint, needs)


def given_tokenizer_needs_its_teacher(recipe: Recipe) -> Iterator[Complaint]:
    """`from: teacher`."""
    if recipe.teacher is None and tokenizer_is_teachers(recipe.student):
        path = ("student", "tokenizer", "from")
        yield Complaint(path, "needs-teacher", "there is no teacher", "add one, or name a tokenizer", (("teacher",),))


def models_are_named_and_pinned(recipe: Recipe) -> Iterator[Complaint]:
    """What is no folder must be a hub name; a hub name without a revision moves under the recipe's feet."""
    for role in ("teacher", "student"):
        model = getattr(recipe, role)
        if isinstance(model, Pretrained):
            yield from _weights(role, model)
            if model.tokenizer is not None:
                beside = (role, "tokenizer_revision")
                yield from _model((role, "tokenizer"), model.tokenizer, model.tokenizer_revision, beside)
    tokenizer = getattr(recipe.student, "tokenizer", None)
    if isinstance(tokenizer, GivenTokenizer) and tokenizer.source != "teacher":
        pin = ("student", "tokenizer", "revision")
        yield from _model(("student", "tokenizer", "from"), tokenizer.source, tokenizer.revision, pin)


def gguf_lies_in_its_model(recipe: Recipe) -> Iterator[Complaint]:
    """A file of the model's folder, and none that a path leads to from there."""
    for role in ("teacher", "student"):
        file = getattr(getattr(recipe, role), "gguf_file", None)
        if file is not None and (PurePath(file).is_absolute() or ".." in PurePath(file).parts or "://" in file):
            message = f"{file!r} is no file in the model's folder"
            yield Complaint((role, "gguf_file"), "outside", message, "name the folder in 'model', the file here")


def _model(path: Path, name: str, revision: str | None, pin: Path) -> Iterator[Complaint]:
    yield from _hub_name(path, name)
    if PurePath(name).is_absolute() or not re.fullmatch(HUB_NAME, name):
        return
    if revision is None:
        message = f"{name!r} has no revision: what the hub calls by this name may change"
        hint = f"add '{pin[-1]}: <commit>', or run with --frozen"
        yield Complaint(path, "unpinned", message, hint, (pin,), severity="warning")
    elif revision in MOVING:
        message = f"{revision!r} is a branch, which moves"
        yield Complaint(pin, "unpinned", message, "name a commit or a tag, or run with --frozen", severity="warning")


def _weights(role: str, model: Pretrained) -> Iterator[Complaint]:
    file = os.path.basename(model.model)
    if file.lower().endswith(".gguf") and not os.path.isdir(model.model):
        hint = f"name its folder here, and write 'gguf_file: {file}' beside it"
        yield Complaint((role, "model"), "bad-model-name", "this is a GGUF file, and a folder is expected", hint)
    else:
        yield from _model((role, "model"), model.model, model.revision, (role, "revision"))


def _hub_name(path: Path, name: str) -> Iterator[Complaint]:
    if not PurePath(name).is_absolute() and not re.fullmatch(HUB_NAME, name):
        message = f"{name!r} is neither a folder beside the recipe nor a hub name (owner/name)"
        yield Complaint(path, "bad-model-name", message, "a path begins with './', '../' or '/'")


def quantised_teachers_can_be_loaded(recipe: Recipe) -> Iterator[Complaint]:
    """bitsandbytes packs safetensors weights, and computes in bf16."""
    teacher = recipe.teacher
    if teacher is None or teacher.quantization == "none":
        return
    path = ("teacher", "quantization")
    if getattr(teacher, "gguf_file", None) is not None:
        message = f"{teacher.quantization!r} can't be made from a GGUF file, which is unpacked to 'dtype'"
        hint = "remove it, or name the safetensors weights"
        yield Complaint(path, "exclusive", message, hint, (("teacher", "gguf_file"),))
    if teacher.dtype != "bf16":
        message = f"a teacher in {teacher.quantization!r} computes in bf16, and dtype is {teacher.dtype!r}"
        yield Complaint(path, "exclusive", message, "add 'dtype: bf16'", (("teacher", "dtype"),))


def teachers_can_be_placed(recipe: Recipe) -> Iterator[Complaint]:
    """accelerate moves whole safetensors weights between memories, and it has to know how much may stay."""
    teacher = recipe.teacher
    if teacher is None:
        return
    path, room = ("teacher", "placement"), ("teacher", "device_memory")
    if teacher.placement == "offload" and teacher.device_memory is None:
        message = "'offload' needs to know what the teacher may take of each device: the student comes after it"
        yield Complaint(path, "needs-size", message, "add 'device_memory: 20GiB' or so", (room,))
    if teacher.placement != "offload" and teacher.device_memory is not None:
        message = f"'device_memory' does nothing with placement {teacher.placement!r}"
        yield Complaint(room, "no-effect", message, "add 'placement: offload', or remove it", (path,), at_key=True)
    if teacher.placement == "device":
        return
    if teacher.quantization != "none":
        message = (
            f"the layers of a teacher in {teacher.quantization!r} can't be moved nor shared out once they are packed"
        )
        hint = "use placement 'device', or quantization 'none'"
        yield Complaint(path, "exclusive", message, hint, (("teacher", "quantization"),))
    if getattr(teacher, "gguf_file", None) is not None and teacher.placement == "offload":
        message = "a GGUF file is unpacked in memory, and can't be fetched layer by layer"
        hint = "use placement 'device', or name the safetensors weights"
        yield Complaint(path, "exclusive", message, hint, (("teacher", "gguf_file"),))


def cached_answers_are_read(recipe: Recipe) -> Iterator[Complaint]:
    """Only the off-policy term reads the same text twice."""
    if recipe.teacher and recipe.teacher.cache.type != "none" and recipe.signals.off_policy.weight == 0:
        message = "'cache' keeps what the teacher says of the corpus, and signals.off_policy has weight 0"
        weight = ("signals", "off_policy", "weight")
        yield Complaint(("teacher", "cache"), "no-effect", message, "remove it", (weight,), at_key=True)


def chat_templates_exist(recipe: Recipe) -> Iterator[Complaint]:
    """A name that we know, or a Jinja file."""
    for role in ("teacher", "student"):
        template = getattr(getattr(recipe, role), "chat_template", None)
        if template is not None and template not in CHAT_TEMPLATES and not template.endswith(".jinja"):
            near = nearest(template, CHAT_TEMPLATES)
            hint = f"did you mean {near!r}?" if near else ""
            message = f"'chatml', 'plain' or a file that ends in .jinja expected, got {template!r}"
            yield Complaint((role, "chat_template"), "bad-choice", message, hint)


def heads_divide_the_width(recipe: Recipe) -> Iterator[Complaint]:
    """Each head has the same, even number of dimensions, and shares keys with as many others."""
    if not isinstance(recipe.student, ScratchStudent):
        return
    shape, path = recipe.student.architecture, ("student", "architecture")
    width, heads, kv_heads = shape.hidden_size, shape.heads, shape.kv_heads
    if width % heads or (width // heads) % 2:
        message = f"hidden_size {width} is not an even multiple of {heads} heads"
        hint = f"{math.ceil(width / (2 * heads)) * 2 * heads} would be"
        keys: tuple[Path, ...] = ((*path, "hidden_size"), (*path, "heads"))
        yield Complaint(written(recipe, *keys), "not-divisible", message, hint, keys)
    if kv_heads is not None and heads % kv_heads:
        message = f"{heads} heads can't share {kv_heads} key-value heads evenly"
        hint = f"a divisor of {heads} can: {', '.join(str(n) for n in range(1, min(heads, 64) + 1) if heads % n == 0)}"
        yield Complaint((*path, "kv_heads"), "not-divisible", message, hint, ((*path, "heads"),))


def new_tokenizers_stay_what_they_were(recipe: Recipe) -> Iterator[Complaint]:
    """transformers gives a qwen2 folder Qwen's own word splitting when it is read again, whatever its tokenizer.json
    says: the student would be served with other tokens (of Thai, for one) than it was trained on."""
    student = recipe.student
    if isinstance(student, ScratchStudent) and isinstance(student.tokenizer, NewTokenizer):
        path: Path = ("student", "architecture", "family")
        if student.architecture.family == "qwen2":
            message = (
                "a qwen2 model does not keep a new tokenizer: transformers reads it back with Qwen's word splitting"
            )
            yield Complaint(path, "exclusive", message, "choose llama, qwen3 or gemma3", (("student", "tokenizer"),))


def layers_are_in_order(recipe: Recipe) -> Iterator[Complaint]:
    """A layer works on what the layers below it have made; how many there are, only the model tells."""
    student = recipe.student
    if not isinstance(student, PrunedStudent):
        return
    if isinstance(student.layers, list) and student.layers != (ordered := sorted(set(student.layers))):
        path: Path = ("student", "layers")
        message = f"{student.layers} is not in ascending order, each layer once"
        yield Complaint(path, "bad-value", message, f"write {ordered}")
    if student.layers == student.vocabulary == "all":
        message = "with all layers and the whole vocabulary nothing is cut"
        hint = "set 'layers' or 'vocabulary', or init: pretrained"
        yield Complaint(("student", "init"), "no-effect", message, hint, (("student", "vocabulary"),))


def context_holds_the_longest_row(recipe: Recipe) -> Iterator[Complaint]:
    """A student from scratch is built for `context` tokens."""
    if isinstance(recipe.student, ScratchStudent) and recipe.student.architecture.context < recipe.data.max_length:
        keys: tuple[Path, ...] = (("student", "architecture", "context"), ("data", "max_length"))
        message = (
            f"rows may have {recipe.data.max_length} tokens, the student reads {recipe.student.architecture.context}"
        )
        hint = "raise student.architecture.context or lower data.max_length"
        yield Complaint(written(recipe, *keys), "too-long", message, hint, keys)


def name_leaves_room_for_the_cold_start(recipe: Recipe) -> Iterator[Complaint]:
    """The cold start is a run of its own, with a longer name."""
    room = LONGEST_NAME - len(COLD_START_SUFFIX)
    if recipe.student.cold_start is not None and len(recipe.name) > room:
        message = f"the cold start's run is called '…{COLD_START_SUFFIX}', which leaves {room} characters"
        yield Complaint(("name",), "bad-name", message, "shorten it", (("student", "cold_start"),))


RULES: tuple[Rule, ...] = (
    token_signals_need_a_teacher,
    given_tokenizer_needs_its_teacher,
    models_are_named_and_pinned,
    quantised_teachers_can_be_loaded,
    teachers_can_be_placed,
    cached_answers_are_read,
    gguf_lies_in_its_model,
    chat_templates_exist,
    heads_divide_the_width,
    new_tokenizers_stay_what_they_were,
    layers_are_in_order,
    context_holds_the_longest_row,
    name_leaves_room_for_the_cold_start,
)
