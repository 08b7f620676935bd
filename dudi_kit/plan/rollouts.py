"""What a plan has to say about rollouts: how often, and the server that samples, which the user starts."""

import shlex
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from transformers import PreTrainedConfig

from dudi_kit.data.encode import Encoder
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.derive import ON_SAMPLES
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.rollouts import VllmEngine


def acting_on_samples(recipe: Recipe) -> list[str]:
    """Signals with a weight that read samples."""
    return [name for name in ON_SAMPLES if getattr(recipe.signals, name).weight > 0]


def server_of(recipe: Recipe) -> VllmEngine | None:
    """The server that samples; None where the training processes do, or where nothing is sampled."""
    engine = recipe.rollouts.engine
    return engine if isinstance(engine, VllmEngine) and acting_on_samples(recipe) else None


def longest_sample(recipe: Recipe, rows: Sequence[Row]) -> int:
    """Tokens of the longest prompt with its sample, or with its reference response where that is longer."""
    most = recipe.rollouts.max_new_tokens
    return max(len(row.prompt) + max(most, len(row.response) + 1) for row in rows)


def serve_command(recipe: Recipe, run: RunDir, engine: VllmEngine, longest: int) -> str:
    """The shell line that starts the server, on the machine that its address names.

    It begins without weights (`dummy`): training hands it the student's before the first sample.
    """
    address = urlsplit(engine.url)
    port = address.port or {"http": 80, "https": 443}[address.scheme]
    words = [
        *("vllm", "serve", str(run.served), "--load-format", "dummy", "--generation-config", "vllm"),
        *("--dtype", {"fp32": "float32", "bf16": "bfloat16"}[recipe.training.precision]),
        *("--max-model-len", str(longest), "--host", str(address.hostname), "--port", str(port)),
    ]
    return f"VLLM_SERVER_DEV_MODE=1 {shlex.join(words)}"


def lay_out_server(recipe: Recipe, run: RunDir, student: Encoder, config: PreTrainedConfig) -> None:
    """The folder that the server starts from: configuration and tokenizer."""
    if server_of(recipe) is not None:
        config.save_pretrained(run.served)
        student.tokenizer.save_pretrained(run.served)


def rollout_notices(recipe: Recipe, run: RunDir, rows: Sequence[Row]) -> Iterator[str]:
    """Signals that rest in some steps, and the server that has to be there."""
    acting, every = acting_on_samples(recipe), recipe.rollouts.every
    if acting and every > 1:
        yield f"rollouts.every: {' and '.join(acting)} act in one step of {every}, with their weight as it is"
    engine = server_of(recipe)
    if engine is not None:
        yield f"rollouts: training sends its prompts to {engine.url}, and expects this server there, for itself alone:"
        yield serve_command(recipe, run, engine, longest_sample(recipe, rows))
