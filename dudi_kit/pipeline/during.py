"""Who scores a student while it trains: made in every training process, where the recipe asks for it."""

from typing import TYPE_CHECKING

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from dudi_kit.data.encode import Encoder
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import Plan
from dudi_kit.recipe.derive import best_score, tasks_during_training
from dudi_kit.recipe.schema import Recipe
from dudi_kit.train.during import Scorer

if TYPE_CHECKING:
    from dudi_kit.evaluate.during import Drawn
    from dudi_kit.pipeline.benchmarks import EvaluationData


def make_scorer(run: RunDir, recipe: Recipe, plan: Plan, accelerator: Accelerator) -> Scorer | None:
    """The scorer that the recipe asks for. Every process must call it: the first one reads the rows for all.

    DataError: rows that can't be read, or that are too few to show all labels.
    """
    best = best_score(recipe)
    if recipe.evaluation.during_training is None or best is None:
        return None
    from dudi_kit.evaluate.during import StudentScorer  # late: its libraries take a second to start

    drawn = broadcast_object_list([drawn_rows(recipe) if accelerator.is_main_process else None])[0]
    return StudentScorer(
        drawn,
        Encoder(load_tokenizer(str(run.tokenizer)), who="student"),
        best=best,
        max_length=recipe.data.max_length,
        batch_size=recipe.evaluation.batch_size,
        rows_read=min(recipe.evaluation.batch_size, plan.micro_batch_size),
    )


def drawn_rows(recipe: Recipe) -> "Drawn":
    """The rows that are asked every time; says what has none."""
    from dudi_kit.pipeline.benchmarks import evaluation_data

    evaluation = recipe.evaluation.model_copy(update={"tasks": tasks_during_training(recipe)})
    return drawn_from(recipe, evaluation_data(recipe.model_copy(update={"evaluation": evaluation}), Ledger()))


def drawn_from(recipe: Recipe, data: "EvaluationData") -> "Drawn":
    """The same of rows that were read. DataError: too few rows to show all labels."""
    from dudi_kit.evaluate.during import draw

    during, wanted = recipe.evaluation.during_training, tasks_during_training(recipe)
    assert during is not None, "asked for"
    tasks = {name: one for name, one in data.tasks.items() if name in wanted}
    named = {name: one for name, one in data.named.items() if name in wanted}
    return draw(tasks, named, data.held_out, limit=during.limit, seed=recipe.evaluation.seed)
