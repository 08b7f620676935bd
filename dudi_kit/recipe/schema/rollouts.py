"""`rollouts`: how the student's own samples are drawn."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag

from dudi_kit.recipe.schema.base import Count, Positive, Strict, Weight, tag_by


def server_address(text: str) -> str:
    """The text without a slash at its end, or a ValueError if it is no address of a server."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket too few
        usable = False
    if not usable or parts.query or parts.fragment or parts.username is not None or parts.password is not None:
        raise ValueError("the address of a server expected; such as http://127.0.0.1:8000")
    return text.rstrip("/")


class HfEngine(Strict):
    """The training processes sample by themselves, with transformers."""

    type: Literal["hf"] = "hf"


class VllmEngine(Strict):
    """A vLLM server that you start samples; the student's weights reach it through a folder that both can read."""

    type: Literal["vllm"]

    url: Annotated[str, AfterValidator(server_address)] = "http://127.0.0.1:8000"
    """Where it listens. A recipe may name only this machine; another one is named on the command line."""

    refresh_every: Count = 1
    """Optimizer steps after which the server gets the student's weights anew; between, samples are of older ones."""

    timeout: Positive = 120.0
    """Seconds that it has for one answer."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 64
    """Requests that a process has open at once; each is one sample."""


Engine = Annotated[
    Annotated[HfEngine, Tag("hf")] | Annotated[VllmEngine, Tag("vllm")],
    Discriminator(tag_by("type", default="hf")),
]


class Rollouts(Strict):
    """ỹ: one response of the student itself for each prompt, shared by the signals that need it."""

    max_new_tokens: Count = 128
    """Longest sample, in tokens; one that did not end by then is marked as truncated and gets no end-of-turn."""

    temperature: Weight = 1.0
    """Of the sampling; 0 is greedy."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the smallest set of pieces with this much mass."""

    every: Count = 1
    """Sample in every N-th optimizer step, the first among them. In the others the signals on samples (sequence,
    on_policy) are off and cost nothing; where they act, their weights are as written."""

    prompts_at_once: Count | None = None
    """Prompts that a process continues at once, the longest first; default: all of its share of a step."""

    engine: Engine = HfEngine()
    """Who samples."""

    log_samples: Annotated[int, Field(ge=0, le=100)] = 1
    """Samples of each language that are written to logs/rollouts.jsonl at a logged step; 0 writes none."""
