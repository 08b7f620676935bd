"""What sampling costs beyond the model's own forward passes with the KV cache.

    python -m benchmarks.generation            all shapes, some minutes; prints the tables of benchmarks/generation.md
    python -m benchmarks.generation 32000 8    shapes of this vocabulary and number of rows only

A student of 8 layers × 512, not trained; prompts of 32 tokens, 64 new ones. Bare: one pass over the prompts, then
63 over a token for each row, with the logits of the last position. In one process, alternating, medians of 5; CPU
seconds of the process, which other processes touch less than the clock.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402 – found on the path above
from torch import Tensor  # noqa: E402
from transformers import (  # noqa: E402
    DynamicCache,
    LogitsProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    TopPLogitsWarper,
)

from dudi_kit.models.generation import Stops, continue_prompts  # noqa: E402
from dudi_kit.train.drawing import Draw, Likeliest, Sayable  # noqa: E402

PROMPT, NEW, TIMES = 32, 64, 5


def student(pieces: int, dtype: torch.dtype) -> Any:
    """Eight layers of 512, tied head."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=pieces, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).to(dtype).eval()


def prompts(rows: int, *, ragged: bool = False) -> list[list[int]]:
    """All of 32 tokens, or of 8 to 32."""
    return [[5 + row] * (PROMPT - row * 24 // rows if ragged else PROMPT) for row in range(rows)]


@torch.no_grad()
def bare(model: Any, rows: int) -> None:
    """The forward passes, and nothing else."""
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.tensor(prompts(rows)), past_key_values=cache, use_cache=True, logits_to_keep=1)
    token_B1 = torch.full((rows, 1), 7)
    for _ in range(NEW - 1):
        model(input_ids=token_B1, past_key_values=cache, use_cache=True, logits_to_keep=1)


def sayable(pieces: int) -> Sayable:
    """All but the last 16, of which the last is the stop token: no sample ends before its time."""
    return Sayable(torch.arange(pieces) < pieces - 16)


def ours(model: Any, asked: Sequence[Sequence[int]], *, top_p: float = 1.0, temperature: float = 1.0) -> None:
    """Sampling as training does it."""
    pieces = model.config.vocab_size
    numbers = torch.rand(len(asked), NEW, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draws = Draw(sayable(pieces), numbers, temperature=temperature or 1.0, top_p=top_p)
    choose = draws if temperature else Likeliest(sayable(pieces))
    continue_prompts(model, asked, Stops((pieces - 1,), pieces - 1), max_new_tokens=NEW, choose=choose)


class Never(LogitsProcessor):
    """The pieces that must not be said, for transformers' own sampling."""

    def __init__(self, pieces: int) -> None:
        self.never = torch.arange(pieces - 16, pieces)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """−inf for them."""
        return scores.index_fill(1, self.never, -torch.inf)


def theirs(model: Any, asked: Sequence[Sequence[int]], *, top_p: float = 1.0) -> None:
    """The same by `generate(do_sample=True)`, whose draws depend on the batch."""
    nucleus = [TopPLogitsWarper(top_p)] if top_p < 1 else []
    ids_BT = torch.tensor(asked)
    model.generate(
        input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=NEW, do_sample=True, top_k=0,
        logits_processor=[Never(model.config.vocab_size), *nucleus],
    )  # fmt: skip


def seconds(act: Callable[[], None]) -> float:
    """CPU time of this process."""
    began = time.process_time()
    act()
    return time.process_time() - began


def alternating(ways: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of each way, one after the other, five times; the first round, which makes kernels, does not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TIMES + 1):
        for name, act in ways.items():
            taken[name].append(seconds(act))
    return {name: values[1:] for name, values in taken.items()}


def ratio(taken: dict[str, list[float]], name: str, to: str) -> float:
    """Median over the rounds."""
    return statistics.median(a / b for a, b in zip(taken[name], taken[to], strict=True))


def main(only: list[str]) -> None:
    print("| pieces | rows | dtype | bare, s | ours / bare | greedy / bare | ragged prompts / bare | generate / bare |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for pieces, dtype in product((151_936, 32_000), (torch.bfloat16, torch.float32)):
        for rows in (8, 32, 64):
            if only and only != [str(pieces), str(rows)]:
                continue
            model = student(pieces, dtype)
            taken = alternating({
                "bare": lambda model=model, rows=rows: bare(model, rows),
                "ours": lambda model=model, rows=rows: ours(model, prompts(rows)),
                "greedy": lambda model=model, rows=rows: ours(model, prompts(rows), temperature=0),
                "ragged": lambda model=model, rows=rows: ours(model, prompts(rows, ragged=True)),
                "theirs": lambda model=model, rows=rows: theirs(model, prompts(rows)),
            })  # fmt: skip
            shares = " | ".join(f"{ratio(taken, name, 'bare'):.2f}" for name in list(taken)[1:])
            base = statistics.median(taken["bare"])
            print(f"| {pieces:,} | {rows} | {str(dtype)[6:]} | {base:.2f} | {shares} |", flush=True)
    if not only:
        nucleus()
        leaving()


def nucleus() -> None:
    """top_p, which has to sort."""
    model = student(151_936, torch.bfloat16)
    with torch.no_grad():
        model.lm_head.weight *= 8  # as sharp as a trained student is: a few pieces hold most of the mass
    taken = alternating({
        "without": lambda: ours(model, prompts(8)),
        "ours": lambda: ours(model, prompts(8), top_p=0.9),
        "theirs": lambda: theirs(model, prompts(8), top_p=0.9),
    })  # fmt: skip
    print("\n8 rows of 151,936 pieces, bf16, top_p 0.9, against the same without:")
    print(f"ours {ratio(taken, 'ours', 'without'):.2f}, generate {ratio(taken, 'theirs', 'without'):.2f}")


def leaving() -> None:
    """Rows that end after 1 to 64 tokens, one after the other."""
    model, pieces, rows = student(32_000, torch.bfloat16), 32_000, 32

    def ends(logits_bV: Tensor, row_b: Tensor, position: int) -> Tensor:
        return torch.where(position >= 2 * row_b, pieces - 1, 7)

    def ended(stop: int) -> None:
        continue_prompts(model, prompts(rows), Stops((stop,), 0), max_new_tokens=NEW, choose=ends)

    taken = alternating({"leave": lambda: ended(pieces - 1), "stay": lambda: ended(1)})
    print(f"\n{rows} rows of 32,000 pieces, bf16, of which one ends at every second token, against rows that all stay:")
    print(f"{ratio(taken, 'leave', 'stay'):.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
