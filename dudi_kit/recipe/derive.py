"""Recipes that follow from a recipe."""

from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.cache import NoCache
from dudi_kit.recipe.schema.data import Dataset
from dudi_kit.recipe.schema.evaluation import BITS, AnyTask, Evaluation
from dudi_kit.recipe.schema.models import (
    GivenTokenizer,
    PrunedStudent,
    ScratchStudent,
    Student,
    Teacher,
    TrimmedVocabulary,
)
from dudi_kit.recipe.schema.rollouts import Rollouts
from dudi_kit.recipe.schema.signals import LikelihoodSignal, SequenceSignal, Signals, TokenSignal
from dudi_kit.recipe.schema.training import Training
from dudi_kit.recipe.schema.verbalizer import Term, Verbalizer

COLD_START_SUFFIX = ".cold-start"

ON_SAMPLES = ("sequence", "on_policy")
"""Signals that read the student's own samples."""

SFT_ALONE = Signals(
    sequence=SequenceSignal(weight=0),
    off_policy=TokenSignal(weight=0),
    on_policy=TokenSignal(weight=0),
    sft=LikelihoodSignal(weight=1),
    dft=LikelihoodSignal(weight=0),
)


def cold_start_recipe(recipe: Recipe) -> Recipe:
    """The inline `student.cold_start` as a recipe of its own: plain SFT on the same data.

    It holds nothing that it does not use, so that a change of, say, the divergence leaves its hash alone and the cold
    start is reused. A recipe without `student.cold_start` has none: ValueError.
    """
    if recipe.student.cold_start is None:
        raise ValueError(f"recipe {recipe.name!r} has no student.cold_start")
    return recipe.model_copy(
        update={
            "name": recipe.name + COLD_START_SUFFIX,
            "description": None,
            "teacher": _without_cache(recipe.teacher) if _needs_teacher(recipe) else None,
            "student": recipe.student.model_copy(update={"cold_start": None}),
            "signals": SFT_ALONE,
            "verbalizer": recipe.verbalizer if demonstrated(recipe) else Verbalizer(),
            "rollouts": Rollouts(),
            "training": _cold_training(recipe),
            "evaluation": Evaluation(tasks={}, models=[], batch_size=recipe.evaluation.batch_size),
        }
    )


def without_samples(signals: Signals) -> Signals:
    """The objective of a step in which nothing is sampled."""
    off = {name: getattr(signals, name).model_copy(update={"weight": 0.0}) for name in ON_SAMPLES}
    return signals.model_copy(update=off)


def drawn_as_compared(signal: TokenSignal, rollouts: Rollouts) -> bool:
    """Whether samples are drawn from the distribution that the signal compares: only then their mean is unbiased."""
    return rollouts.temperature == signal.temperature and rollouts.top_p == 1


def tokenizer_is_teachers(student: Student) -> bool:
    """Whether the student takes its tokenizer from the teacher."""
    return (
        isinstance(student, ScratchStudent)
        and isinstance(student.tokenizer, GivenTokenizer)
        and student.tokenizer.source == "teacher"
    )


def trimming(student: Student) -> TrimmedVocabulary | None:
    """How the student's vocabulary is trimmed; None where it is not."""
    if not isinstance(student, PrunedStudent) or student.vocabulary == "all":
        return None
    return TrimmedVocabulary() if student.vocabulary == "corpus" else student.vocabulary


def extra_texts(student: Student) -> dict[str, Dataset]:
    """Datasets that are read for their pieces alone."""
    settings = trimming(student)
    return settings.extra if settings else {}


def demonstrated(recipe: Recipe) -> list[str]:
    """Datasets whose own prompts get a demonstration; only then the verbalizer matters to plain SFT."""
    return [name for name, dataset in recipe.data.train.items() if dataset.demonstrate]


def asks_for_responses(recipe: Recipe) -> list[str]:
    """Datasets whose responses the teacher writes."""
    return [name for name, dataset in recipe.data.train.items() if dataset.responses != "corpus"]


def reading_terms(recipe: Recipe) -> list[Term]:
    """Signals with a weight whose teacher reads the demonstration."""
    demonstration = recipe.verbalizer.demonstration
    if demonstration.source == "none":
        return []
    return [term for term in demonstration.terms if getattr(recipe.signals, term).weight > 0]


def tasks_during_training(recipe: Recipe) -> dict[str, AnyTask]:
    """The tasks that are scored while the student trains; those that the recipe does not have are left out."""
    during, tasks = recipe.evaluation.during_training, recipe.evaluation.tasks
    if during is None:
        return {}
    return {name: task for name, task in tasks.items() if during.tasks is None or name in during.tasks}


def best_score(recipe: Recipe) -> str | None:
    """The score that picks the best step; None where the recipe leaves it open, and there is no one choice."""
    during, tasks = recipe.evaluation.during_training, list(tasks_during_training(recipe))
    if during is None:
        return None
    if during.best is not None:
        return during.best
    if recipe.data.held_out:
        return BITS
    return tasks[0] if len(tasks) == 1 else None


def _without_cache(teacher: Teacher | None) -> Teacher | None:
    """Plain SFT has no use for it."""
    return teacher and teacher.model_copy(update={"cache": NoCache()})


def _needs_teacher(recipe: Recipe) -> bool:
    """Whether plain SFT on the recipe's data has a use for its teacher."""
    writes = bool(demonstrated(recipe)) and recipe.verbalizer.demonstration.source == "teacher"
    return writes or bool(asks_for_responses(recipe)) or tokenizer_is_teachers(recipe.student)


def _cold_training(recipe: Recipe) -> Training:
    cold = recipe.student.cold_start
    assert cold is not None
    changes = {"learning_rate": cold.learning_rate, "schedule": cold.schedule}
    given = {name: value for name, value in changes.items() if value is not None}
    # The length is never that of `training`: neither given means one epoch.
    return recipe.training.model_copy(update={"epochs": cold.epochs, "steps": cold.steps, **given})
