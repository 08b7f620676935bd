"""What a plan tells beside its figures: what was decided for the user, what is left out or read from elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dudi_kit.data.ledger import Ledger
from dudi_kit.plan.engine import engine_stage
from dudi_kit.plan.fingerprint import is_path
from dudi_kit.plan.trackers import tracker_notices
from dudi_kit.recipe.derive import best_score, drawn_as_compared, tasks_during_training
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.evaluation import BITS
from dudi_kit.recipe.schema.signals import ReverseKL
from dudi_kit.verbalizer.vocabulary.mapping import JointVocabulary

SPANS_OF_SAMPLES = (
    "signals.on_policy: spans are compared as 'this text or another', as on the corpus: rollouts are drawn at another "
    "temperature than the signal's, or cut by top_p, so likelihoods of samples are a biased estimate of the reverse KL"
)


def paths_outside(value: Any, folder: Path, where: tuple[str, ...] = ()) -> Iterator[str]:
    """Paths of the recipe that do not lie in its own folder."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths_outside(item, folder, (*where, key))
    elif is_path(where, value) and not Path(value).is_relative_to(folder):
        yield value


def notices_of(recipe: Recipe, vocabulary: JointVocabulary | None, ledger: Ledger) -> list[str]:
    """What was decided for the user, and what was left out."""
    asked, runs = recipe.deepspeed.stage, engine_stage(recipe)
    stage = f"deepspeed.stage: {asked} runs as {runs}: from there on DeepSpeed adds up bf16 gradients in fp32"
    mapping = [vocabulary.reason] if vocabulary else []
    spans = [SPANS_OF_SAMPLES] if vocabulary and _samples_are_no_estimate(recipe, vocabulary) else []
    idle = [f"dataset {name}: not read, its weight is 0" for name, d in recipe.data.train.items() if d.weight == 0]
    return [
        *mapping,
        *spans,
        *([stage] if runs != asked else []),
        *_adapting(recipe),
        *idle,
        *ledger.lines(),
        *tracker_notices(recipe.output.trackers),
    ]


def scoring_notices(recipe: Recipe, steps: int) -> Iterator[str]:
    """How often the student is scored while it trains, and what that leaves behind."""
    during, best = recipe.evaluation.during_training, best_score(recipe)
    if during is None or best is None:
        return
    if during.every > steps:
        yield (
            f"evaluation.during_training.every: {during.every:,} is more than the run's {steps:,} steps; the student "
            "is scored before the first and after the last only"
        )
    scorings = 1 + -(-steps // during.every)
    asked = ", ".join([*([BITS] if recipe.data.held_out else []), *tasks_during_training(recipe)])
    yield (
        f"evaluation.during_training: {scorings:,} scorings of {asked}, at most {during.limit:,} rows of a language "
        f"each; {best} picks the best step, and the final model is the {during.final} one's"
    )


def _adapting(recipe: Recipe) -> Iterator[str]:
    """What an adapter means for the learning rate and for what is saved."""
    adapter = recipe.student.adapter
    if adapter is None:
        return
    if "learning_rate" not in recipe.training.model_fields_set:
        rate = recipe.training.learning_rate
        yield f"training.learning_rate: {rate:g} is the default for whole models; adapters are often given 10 × as much"
    if adapter.quantization != "none":
        yield (
            f"student.adapter: what is saved and scored is the adapter merged into the {adapter.quantization} weights "
            "unpacked again, as large as the student was"
        )


def _samples_are_no_estimate(recipe: Recipe, vocabulary: JointVocabulary) -> bool:
    """A reverse KL of spans was asked for, and the samples are not of the distribution that it is of."""
    signal = recipe.signals.on_policy
    asked = vocabulary.mapping == "align" and signal.weight > 0 and isinstance(signal.divergence, ReverseKL)
    return asked and not drawn_as_compared(signal, recipe.rollouts)
