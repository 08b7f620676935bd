"""Rules about `training`, `evaluation` and `output`: how the run is carried out and judged."""

import unicodedata
from collections.abc import Iterator
from pathlib import PurePath

from dudi_kit.recipe.checks.complaint import Complaint, Rule
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.evaluation import Task
from dudi_kit.recipe.schema.training import Training


def steps_or_epochs(recipe: Recipe) -> Iterator[Complaint]:
    """The length of a run is given once."""
    sections = {("training",): recipe.training, ("student", "cold_start"): recipe.student.cold_start}
    for path, section in sections.items():
        if section is not None and section.steps is not None and section.epochs is not None:
            message = "'steps' and 'epochs' exclude each other"
            yield Complaint(
                (*path, "steps"), "exclusive", message, "remove one of them", ((*path, "epochs"),), at_key=True
            )


def micro_batches_divide_the_batch(recipe: Recipe) -> Iterator[Complaint]:
    """An optimizer step is a whole number of forward passes."""
    training: Training = recipe.training
    micro, batch = training.micro_batch_size, training.batch_size
    if micro is not None and batch % micro:
        path = ("training", "micro_batch_size")
        message = f"batch_size {batch} is not a multiple of {micro}"
        hint = f"{max(n for n in range(1, min(micro, batch) + 1) if batch % n == 0)} would divide it"
        yield Complaint(path, "not-divisible", message, hint, (("training", "batch_size"),))


def compiled_layers_stay_whole(recipe: Recipe) -> Iterator[Complaint]:
    """ZeRO-3 gathers each layer's weights from hooks in its forward pass, which the compiler would cut apart."""
    if recipe.training.compile and recipe.deepspeed.stage == 3:
        message = "layers whose weights ZeRO-3 gathers can't be compiled"
        stage = ("deepspeed", "stage")
        yield Complaint(("training", "compile"), "exclusive", message, "remove it, or use stage 2", (stage,))


def tasks_can_be_scored(recipe: Recipe) -> Iterator[Complaint]:
    """Answers are compared after trimming, NFC and lower-casing; macro F1 needs to know the classes."""
    for name, task in recipe.evaluation.tasks.items():
        path = ("evaluation", "tasks", name)
        same = _same_labels(task) if isinstance(task, Task) else None
        if same:
            message = f"{same[0]!r} and {same[1]!r} are the same answer: they are compared trimmed and in lower case"
            yield Complaint((*path, "labels"), "duplicate", message, "keep one of them")


def _same_labels(task: Task) -> tuple[str, str] | None:
    seen: dict[str, str] = {}
    for label in task.labels or ():
        plain = unicodedata.normalize("NFC", label).strip().lower()
        if plain in seen:
            return seen[plain], label
        seen[plain] = label
    return None


def shown_models_exist(recipe: Recipe) -> Iterator[Complaint]:
    """Only a list that the user wrote is complained about: the default shows those that there are."""
    written = "models" in recipe.evaluation.model_fields_set
    if recipe.teacher is None and written and "teacher" in recipe.evaluation.models:
        message = "'teacher' is to answer, and there is no teacher"
        path = ("evaluation", "models")
        yield Complaint(path, "needs-teacher", message, "remove it from the list, or add a teacher", (("teacher",),))


def output_stays_below(recipe: Recipe) -> Iterator[Complaint]:
    """A recipe from someone else must not choose where on the disk it writes."""
    folder = PurePath(recipe.output.folder)
    if folder.is_absolute() or ".." in folder.parts or recipe.output.folder.startswith("~"):
        message = f"a folder below the one where dudi-kit is called expected, got {recipe.output.folder!r}"
        hint = "a recipe can't write elsewhere; the option --output can"
        yield Complaint(("output", "folder"), "outside", message, hint)


RULES: tuple[Rule, ...] = (
    steps_or_epochs,
    micro_batches_divide_the_batch,
    compiled_layers_stay_whole,
    tasks_can_be_scored,
    shown_models_exist,
    output_stays_below,
)
