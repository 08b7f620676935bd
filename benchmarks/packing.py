"""What sharing prompts and packing save in a micro-batch, and what joining one costs.

    python -m benchmarks.packing

All three signals over four pairs: student of 8 layers × 512 forward and backward over (y, ỹ), teacher of 8 × 768 and
reference forward, 32,000 pieces, in bf16 where the processor multiplies it, else in fp32. Three ways by turns in one
process, medians of 5, CPU seconds of the process: each row apart in its line; prompts shared where that is less work,
as training does it; and packed besides. The padded share is that of the student's batch.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 – found on the path above
import torch  # noqa: E402
from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: E402

import dudi_kit.train.step as of_step  # noqa: E402
from benchmarks.measure import DTYPES, quick_dtype  # noqa: E402
from dudi_kit.data.batches import Batch, Sharing, join, pack  # noqa: E402
from dudi_kit.models.generation import Continuation  # noqa: E402
from dudi_kit.models.packing import sharing_of  # noqa: E402
from dudi_kit.plan.rows import Row  # noqa: E402
from dudi_kit.recipe.schema.signals import Signals  # noqa: E402
from dudi_kit.train.heap import keep_heap  # noqa: E402
from dudi_kit.train.step import Models, Objective, Padding, Pair  # noqa: E402

PIECES, ROWS, TIMES = 32_000, 4, 5
LENGTHS: dict[str, tuple[int, int, float]] = {
    # medians of prompts and of responses, and their spread (σ of the logarithm)
    "all of 48": (48, 48, 0.0),
    "48, as corpora are": (48, 48, 0.6),
    "prompts of 192, responses of 16 (classes, short answers)": (192, 16, 0.3),
    "prompts of 192, responses of 96 (summaries)": (192, 96, 0.3),
    "prompts of 16, responses of 192 (stories)": (16, 192, 0.3),
}
WAYS = ("apart", "shared", "packed")


def model(hidden: int) -> Any:
    """Eight layers."""
    config = Qwen2Config(
        vocab_size=PIECES, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=8,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 128, max_position_embeddings=1024,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).to(DTYPES[quick_dtype()])


def pairs_of(prompts: int, responses: int, spread: float) -> list[Pair]:
    """Rows whose lengths are log-normal, cut to 8 … 256; the teacher's prompts are the student's."""
    draw = np.random.default_rng(0)

    def some(median: int) -> list[int]:
        length = int(np.clip(median * np.exp(spread * draw.standard_normal()), 8, 256))
        return [int(token) for token in draw.integers(10, PIECES, length)]

    def pair(number: int) -> Pair:
        prompt = some(prompts)
        taught = {"off_policy": prompt, "on_policy": prompt}
        return Pair(
            Row(number, "id", "mine", prompt, some(responses), taught), Continuation(some(responses), ended=True)
        )

    return [pair(number) for number in range(ROWS)]


def joined(pairs: Sequence[Pair], way: str, sharing: Sharing | None) -> Batch:
    """The student's batch."""
    prompts = [pair.row.prompt for pair in pairs] * 2
    responses = [pair.response(term) for term in ("off_policy", "on_policy") for pair in pairs]
    make = pack if way == "packed" else join
    return make(prompts, responses, pad_id=0, sharing=None if way == "apart" else sharing)


def padded_share(batch: Batch, pairs: Sequence[Pair]) -> float:
    """Of all columns."""
    if batch.segment_LT is not None:
        return float((batch.segment_LT < 0).float().mean())
    tokens = sum(2 * len(pair.row.prompt) + len(pair.row.response) + len(pair.response("on_policy")) for pair in pairs)
    return 1 - tokens / batch.input_ids_LT.numel()


def main() -> None:
    keep_heap()  # as training does
    torch.manual_seed(0)
    student, reference, teacher = model(512), model(512).eval(), model(768).eval()
    models = Models(student, teacher.requires_grad_(False), reference.requires_grad_(False))
    signals = Signals.model_validate({"sequence": {"weight": 1.0}, "off_policy": {"weight": 1.0}, "on_policy": {}})
    ways = {way: Objective(signals, padding=Padding(0, 0), pieces=PIECES, packing=way == "packed") for way in WAYS}

    def step(pairs: Sequence[Pair], way: str) -> float:
        began = time.process_time()
        objective, apart = ways[way], patch.object(of_step, "sharing_of", lambda _: None)
        with apart if way == "apart" else nullcontext():
            objective(models, pairs, objective.counts(pairs)).loss.backward()
        student.zero_grad()
        return time.process_time() - began

    print(
        "| lengths | columns apart / shared / packed | padded | apart, s | shared / apart | packed / apart | joining |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, lengths in LENGTHS.items():
        pairs = pairs_of(*lengths)
        rounds = [[step(pairs, way) for way in WAYS] for _ in range(TIMES + 1)][1:]
        apart = statistics.median(seconds for seconds, _, _ in rounds)
        ratios = [statistics.median(seconds[i] / seconds[0] for seconds in rounds) for i in (1, 2)]
        made = [joined(pairs, way, sharing_of(student.config)) for way in WAYS]
        columns = " / ".join(f"{batch.input_ids_LT.numel():,}" for batch in made)
        shares = " / ".join(f"{padded_share(batch, pairs):.0%}" for batch in made)
        began = time.process_time()
        for _ in range(20):
            joined(pairs, "packed", sharing_of(student.config))
        joining = (time.process_time() - began) / 20 * 2  # the teacher's batch is as large
        shown = [f"{ratio:.2f}" for ratio in ratios] + [f"{joining / apart:.2%}"]
        print(f"| {name} | {columns} | {shares} | {apart:.2f} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
