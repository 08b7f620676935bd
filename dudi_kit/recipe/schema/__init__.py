"""The recipe as strict Pydantic models, a module for each section. The docstring under a field documents it."""

from typing import Literal

from dudi_kit.recipe.schema.base import Name, Requirement, Strict, Text
from dudi_kit.recipe.schema.data import Data
from dudi_kit.recipe.schema.engine import DeepSpeed
from dudi_kit.recipe.schema.evaluation import Evaluation
from dudi_kit.recipe.schema.models import Student, Teacher
from dudi_kit.recipe.schema.output import Output
from dudi_kit.recipe.schema.rollouts import Rollouts
from dudi_kit.recipe.schema.signals import Signals
from dudi_kit.recipe.schema.training import Training
from dudi_kit.recipe.schema.verbalizer import Verbalizer

__all__ = ["Recipe"]


class Recipe(Strict):
    """A whole distillation: models, data, signals, training, evaluation."""

    version: Literal[1] = 1
    """Of the recipe language."""

    requires: Requirement | None = None
    """Versions of dudi-kit that can read this recipe, such as `>=0.1,<0.3`; asked first of all, of parents too."""

    name: Name
    """Names the run directory."""

    description: Text | None = None
    """For people."""

    teacher: Teacher | None = None
    """The model that teaches; not needed where no token signal has a weight."""

    student: Student
    """The model that is taught."""

    data: Data
    verbalizer: Verbalizer = Verbalizer()
    signals: Signals = Signals()
    rollouts: Rollouts = Rollouts()
    training: Training = Training()
    deepspeed: DeepSpeed = DeepSpeed()
    evaluation: Evaluation = Evaluation()
    output: Output = Output()
