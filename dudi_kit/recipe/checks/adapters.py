"""Rules about `student.adapter`."""

from collections.abc import Iterator

from dudi_kit.recipe.checks.complaint import Complaint, Rule
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.models import ScratchStudent


def adapters_have_weights_beside_them(recipe: Recipe) -> Iterator[Complaint]:
    """Random weights are trained whole: frozen they would say nothing."""
    if isinstance(recipe.student, ScratchStudent) and recipe.student.adapter is not None:
        message = "a student from random weights has nothing to adapt"
        hint = "remove it, or start from weights that exist: 'student: {model: …}'"
        yield Complaint(("student", "adapter"), "exclusive", message, hint, (("student", "init"),), at_key=True)


def packed_students_can_be_trained(recipe: Recipe) -> Iterator[Complaint]:
    """bitsandbytes packs safetensors weights and computes in bf16, and ZeRO-3 can't share out what it packed."""
    adapter = recipe.student.adapter
    if adapter is None or adapter.quantization == "none":
        return
    path, packed = ("student", "adapter", "quantization"), adapter.quantization
    if getattr(recipe.student, "gguf_file", None) is not None:
        message = f"{packed!r} can't be made from a GGUF file, which is unpacked"
        hint = "remove it, or name the safetensors weights"
        yield Complaint(path, "exclusive", message, hint, (("student", "gguf_file"),))
    if recipe.training.precision != "bf16":
        message = f"a student in {packed!r} is trained in bf16, and training.precision is {recipe.training.precision!r}"
        yield Complaint(path, "exclusive", message, "set it to bf16", (("training", "precision"),))
    if recipe.deepspeed.stage == 3:
        message = f"ZeRO-3 shares out every weight, and those packed in {packed!r} can't be"
        hint = "use stage 2: the packed weights are small, and only the adapter has an optimizer"
        yield Complaint(path, "exclusive", message, hint, (("deepspeed", "stage"),))


RULES: tuple[Rule, ...] = (adapters_have_weights_beside_them, packed_students_can_be_trained)
