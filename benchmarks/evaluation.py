"""A full evaluation of a real small model on real tasks: scores, intervals, time by task; and what batching gains.

    python -m benchmarks.evaluation MODEL DATA_HOME FOLDER > evaluation.md
    python -m benchmarks.evaluation MODEL DATA_HOME            # only what batching gains

MODEL: a model folder or a GGUF file of a base model, as Gemma 3 270M. DATA_HOME: local copies of benchmarks. FOLDER:
where the scores go; called again, it goes on where it was stopped. Writes a table in Markdown to stdout.
"""

import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from dudi_kit.noise import hush

hush()

import torch  # noqa: E402 -- the libraries must be told to be quiet first
from transformers import PreTrainedModel  # noqa: E402

from dudi_kit.data.encode import Encoder  # noqa: E402
from dudi_kit.data.ledger import Ledger  # noqa: E402
from dudi_kit.evaluate.batching import of_like_length  # noqa: E402
from dudi_kit.evaluate.scores import Scores, load_scores  # noqa: E402
from dudi_kit.models.generation import Stops, continue_prompts  # noqa: E402
from dudi_kit.pipeline.benchmarks import read_named  # noqa: E402
from dudi_kit.pipeline.choice import Choice  # noqa: E402
from dudi_kit.pipeline.folders import evaluate_folder, source_of  # noqa: E402
from dudi_kit.pipeline.weights import loaded  # noqa: E402
from dudi_kit.plan.models import encoder_of  # noqa: E402

TASKS = ("sentiment", "topic", "causal", "nli", "qa", "global_mmlu_lite", "translation_en_xx")
LANGUAGES = ("id", "th", "vi", "ta", "tl", "my")
LIMIT, BATCH, NEW_TOKENS = 20, 16, 16
PROMPTS, ROUNDS = 48, 5


def choice(data_home: Path, limit: int) -> Choice:
    """One worked example: without any, a base model does not know the form of an answer."""
    return Choice(TASKS, LANGUAGES, limit, "base", 1, "generation", BATCH, "bf16", data_home)


def report(scores: Scores, seconds: float) -> None:
    """A row for each task and language."""
    print(f"Wall time of the whole call: {seconds:,.0f} s.\n")
    print("| task | language | rows | score | 95 % interval | without floor | null | cut | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for task, scored in scores.tasks.items():
        for language, row in scored.languages.items():
            score = next(iter(row.metrics.values()))
            around = f"{score.interval[0]:.1f}–{score.interval[1]:.1f}" if score.interval else "–"
            unfloored = f"{row.weak.unfloored:.1f}" if row.weak else "–"
            if score.unfloored:
                unfloored += " ({:.1f} … {:.1f})".format(*score.unfloored.interval)
            cells = [task, language, f"{row.rows} of {row.of_rows}", f"{score.value:.1f}", around, unfloored]
            print(f"| {' | '.join([*cells, str(row.null), str(row.truncated), f'{row.seconds:.1f}'])} |")
    for missing in scores.missing:
        print(f"\nNot scored: {missing.task} {missing.language}: {missing.reason}")


class Way(NamedTuple):
    """How the prompts are put into batches."""

    name: str
    batches: list[list[list[int]]]

    @property
    def padded(self) -> int:
        """Tokens of the prompts with their padding, in units of 16 as `data.batches` pads."""
        return sum(len(batch) * -(-max(map(len, batch)) // 16) * 16 for batch in self.batches)


def ways(prompts: list[list[int]]) -> list[Way]:
    """One by one; in the order of the rows; sorted by length alone; of like length, as an evaluation does."""
    by_length = sorted(prompts, key=len, reverse=True)

    def cut(order: list[list[int]]) -> list[list[list[int]]]:
        return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]

    like = [[prompts[i] for i in places] for places in of_like_length(list(map(len, prompts)), BATCH)]
    return [
        Way("one by one", [[prompt] for prompt in prompts]),
        Way(f"batches of {BATCH}, in the order of the rows", cut(prompts)),
        Way(f"batches of {BATCH}, sorted by length", cut(by_length)),
        Way(f"batches of up to {BATCH}, of like length", like),
    ]


@torch.inference_mode()
def seconds_of(model: PreTrainedModel, encoder: Encoder, batches: list[list[list[int]]]) -> float:
    """CPU time of answers of NEW_TOKENS tokens, none of which ends earlier: one thread, so others' work does not
    count."""
    began = time.process_time()
    for batch in batches:
        continue_prompts(model, batch, Stops((), encoder.pad_id), max_new_tokens=NEW_TOKENS)
    return time.process_time() - began


def gain(model_path: Path, data_home: Path, rounds: int) -> None:
    """Prompts of all tasks in turn, as they would come, put into batches in each way; the ways alternate."""
    source = source_of(model_path, "base", "bf16")
    model, encoder = loaded(source, who="student"), encoder_of(source, who="student")
    data = read_named(choice(data_home, 4).evaluation(), Ledger())
    rows = [row for task in data.values() for rows in task.rows.values() for row in rows.rows]
    rows = [row for place in range(4) for row in rows[place::4]]
    prompts = [encoder.completion_ids(str(row.prompt)) for row in rows][:PROMPTS]
    tried = ways(prompts)
    seconds_of(model, encoder, [prompts[:2], prompts[:1]])  # kernels are made at first use
    took = [[seconds_of(model, encoder, way.batches) for way in tried] for _ in range(rounds)]
    print("\n| answers | batches | padded tokens | CPU seconds | gain |\n|---|---|---|---|---|")
    for place, way in enumerate(tried):
        seconds = median(each[place] for each in took)
        ratio = median(each[0] / each[place] for each in took)
        print(f"| {way.name} | {len(way.batches)} | {way.padded:,} | {seconds:.1f} | {ratio:.2f} |")
    lengths = [len(ids) for ids in prompts]
    told = f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {sum(lengths):,} in all"
    print(f"\n{told}; {NEW_TOKENS} new tokens each; median of {rounds}.")


def main() -> None:
    """Scores first, then the ratios; or these alone."""
    model, data_home = map(Path, sys.argv[1:3])
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        gain(model, data_home, ROUNDS)
        return
    folder = Path(sys.argv[3])
    began = time.monotonic()
    evaluate_folder(model, choice(data_home, LIMIT), folder)
    report(load_scores(folder / "evaluation" / "after.json"), time.monotonic() - began)
    gain(model, data_home, ROUNDS)


if __name__ == "__main__":
    main()
