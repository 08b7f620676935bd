"""A full evaluation of a real small model on real tasks: scores, intervals, time by task; and what batching gains.

    python -m benchmarks.evaluation MODEL DATA_HOME FOLDER > evaluation.md

MODEL: a model folder or a GGUF file of a base model, as Gemma 3 270M. DATA_HOME: local copies of benchmarks. FOLDER:
where the scores go; called again, it goes on where it was stopped. Writes a table in Markdown to stdout.
"""

import sys
import time
from pathlib import Path

from dudi_kit.noise import hush

hush()

import torch  # noqa: E402 -- the libraries must be told to be quiet first
from transformers import PreTrainedModel  # noqa: E402

from dudi_kit.data.encode import Encoder  # noqa: E402
from dudi_kit.data.ledger import Ledger  # noqa: E402
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
            cells = [task, language, f"{row.rows} of {row.of_rows}", f"{score.value:.1f}", around, unfloored]
            print(f"| {' | '.join([*cells, str(row.null), str(row.truncated), f'{row.seconds:.1f}'])} |")
    for missing in scores.missing:
        print(f"\nNot scored: {missing.task} {missing.language}: {missing.reason}")


@torch.inference_mode()
def seconds_of(model: PreTrainedModel, encoder: Encoder, prompts: list[list[int]], batch: int) -> float:
    """CPU time of answers of NEW_TOKENS tokens to prompts in this order: one thread, so others' work does not count."""
    began = time.process_time()
    for start in range(0, len(prompts), batch):
        stops = Stops(tuple(encoder.stop_ids), encoder.pad_id)
        continue_prompts(model, prompts[start : start + batch], stops, max_new_tokens=NEW_TOKENS)
    return time.process_time() - began


def gain(model_path: Path, data_home: Path) -> None:
    """Prompts of all tasks in turn, as they would come: one by one, in batches, and in batches of like length."""
    source = source_of(model_path, "base", "bf16")
    model, encoder = loaded(source, who="student"), encoder_of(source, who="student")
    data = read_named(choice(data_home, 4).evaluation(), Ledger())
    rows = [row for task in data.values() for rows in task.rows.values() for row in rows.rows]
    rows = [row for place in range(4) for row in rows[place::4]]
    prompts = [encoder.completion_ids(str(row.prompt)) for row in rows][:24]
    by_length = sorted(prompts, key=len, reverse=True)
    seconds_of(model, encoder, prompts[:2], 2)  # kernels are made at first use
    alone = seconds_of(model, encoder, prompts, 1)
    for name, order in (("in the order of the rows", prompts), ("of like length", by_length)):
        took = seconds_of(model, encoder, order, BATCH)
        print(f"| batches of {BATCH}, {name} | {took:.1f} | {alone / took:.2f} |")
    lengths = [len(ids) for ids in prompts]
    print(f"| one by one | {alone:.1f} | 1 |\n")
    print(f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {NEW_TOKENS} tokens each.")


def main() -> None:
    """Scores first, then the ratio."""
    model, data_home, folder = map(Path, sys.argv[1:4])
    torch.set_num_threads(1)
    began = time.monotonic()
    evaluate_folder(model, choice(data_home, LIMIT), folder)
    report(load_scores(folder / "evaluation" / "after.json"), time.monotonic() - began)
    print("\n| answers | CPU seconds | gain |\n|---|---|---|")
    gain(model, data_home)


if __name__ == "__main__":
    main()
