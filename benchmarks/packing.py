"""What packing saves in a micro-batch, and what joining one costs.

    python -m benchmarks.packing

All three signals over 16 rows of 16 to 256 tokens: student of 8 layers × 512 forward and backward over (y, ỹ), teacher
of 8 × 768 and reference forward, 32,000 pieces, in bf16 where the processor multiplies it, else in fp32. Padded against
packed in one process, alternating, medians of 5; CPU seconds of the process. The padded share is that of the student's
batch.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 – found on the path above
import torch  # noqa: E402
from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: E402

from benchmarks.measure import DTYPES, quick_dtype  # noqa: E402
from dudi_kit.data.batches import Batch, join, pack  # noqa: E402
from dudi_kit.models.generation import Continuation  # noqa: E402
from dudi_kit.plan.rows import Row  # noqa: E402
from dudi_kit.recipe.schema.signals import Signals  # noqa: E402
from dudi_kit.train.heap import keep_heap  # noqa: E402
from dudi_kit.train.step import Models, Objective, Padding, Pair  # noqa: E402

PIECES, ROWS, TIMES = 32_000, 16, 5
LENGTHS: dict[str, tuple[float, float]] = {
    # median and spread (σ of the logarithm) of prompts and of responses
    "all alike": (48, 0.0),
    "sorted into micro-batches": (48, 0.15),
    "as corpora are": (48, 0.6),
    "a few long ones": (32, 1.0),
}


def model(hidden: int) -> Any:
    """Eight layers."""
    config = Qwen2Config(
        vocab_size=PIECES, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=8,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 128, max_position_embeddings=1024,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).to(DTYPES[quick_dtype()])


def pairs_of(median: float, spread: float) -> list[Pair]:
    """Rows whose lengths are log-normal, cut to 8 … 256; the teacher's prompts are twice as long."""
    draw = np.random.default_rng(0)

    def some() -> list[int]:
        length = int(np.clip(median * np.exp(spread * draw.standard_normal()), 8, 256))
        return [int(token) for token in draw.integers(10, PIECES, length)]

    def pair(number: int) -> Pair:
        prompt = some()
        taught = {"off_policy": prompt, "on_policy": prompt + prompt}
        return Pair(Row(number, "id", "mine", prompt, some(), taught), Continuation(some(), ended=True))

    return [pair(number) for number in range(ROWS)]


def joined(pairs: Sequence[Pair], *, packing: bool) -> Batch:
    """The student's batch."""
    prompts = [pair.row.prompt for pair in pairs] * 2
    responses = [pair.response(term) for term in ("off_policy", "on_policy") for pair in pairs]
    return (pack if packing else join)(prompts, responses, pad_id=0)


def padded_share(batch: Batch, pairs: Sequence[Pair]) -> float:
    """Of all columns."""
    tokens = sum(2 * len(pair.row.prompt) + len(pair.row.response) + len(pair.response("on_policy")) for pair in pairs)
    return 1 - tokens / batch.input_ids_LT.numel()


def main() -> None:
    keep_heap()  # as training does
    torch.manual_seed(0)
    student, reference, teacher = model(512), model(512).eval(), model(768).eval()
    models = Models(student, teacher.requires_grad_(False), reference.requires_grad_(False))
    signals = Signals.model_validate({"sequence": {"weight": 1.0}, "off_policy": {"weight": 1.0}, "on_policy": {}})
    ways = {
        packing: Objective(signals, padding=Padding(0, 0), pieces=PIECES, packing=packing) for packing in (False, True)
    }

    def step(pairs: Sequence[Pair], *, packing: bool) -> float:
        began = time.process_time()
        objective = ways[packing]
        objective(models, pairs, objective.counts(pairs)).loss.backward()
        student.zero_grad()
        return time.process_time() - began

    print("| lengths | padded share | packed: padded share | padded, s | packed / padded | joining / padded step |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, lengths in LENGTHS.items():
        pairs = pairs_of(*lengths)
        rounds = [(step(pairs, packing=False), step(pairs, packing=True)) for _ in range(TIMES + 1)][1:]
        ratio = statistics.median(packed / padded for padded, packed in rounds)
        padded = statistics.median(seconds for seconds, _ in rounds)
        began = time.process_time()
        for _ in range(20):
            joined(pairs, packing=True)
        joining = (time.process_time() - began) / 20 * 2  # the teacher's batch is as large
        shares = " | ".join(f"{padded_share(joined(pairs, packing=packing), pairs):.0%}" for packing in (False, True))
        print(f"| {name} | {shares} | {padded:.2f} | {ratio:.2f} | {joining / padded:.2%} |", flush=True)


if __name__ == "__main__":
    main()
