"""Named tasks as lm-eval's: a YAML file for each task and language, beside its rows with the prompts as they are asked.

What lm-eval can't say is said in `UNSAID` and in the files' descriptions. Chat models: lm-eval puts its template around
one user turn, so worked examples in turns of their own can't be exported.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from dudi_kit.data.example import Turn
from dudi_kit.errors import UsageError
from dudi_kit.evaluate.run_named import NamedData
from dudi_kit.evaluate.task_rows import LanguageRows, TaskRow
from dudi_kit.plan.layout import write_text

UNSAID = {
    "labels": "a label is read behind its tag and compared without capitals; SEA-HELM's reading of answers without a "
    "tag, balanced accuracy and chance are not there",
    "likelihood": "plain accuracy, lm-eval's acc; balanced accuracy and chance are not there",
    "references": "exact match with the first reference and lm-eval's chrF; token F1, ROUGE-L and chrF++ are not there",
}
"""How the figures of an exported task differ from ours."""

NO_STOP = "<dudi-kit: no stop>"
"""A text that no model writes: without any, lm-eval would stop at its separator of worked examples."""


def export_task(name: str, data: NamedData, folder: Path) -> Iterator[str]:
    """Write the files of a task; the names by which lm-eval knows it, `dudi_<task>_<language>`.

    UsageError: worked examples for a model that chats. A task of constraints has nothing to compare with in lm-eval and
    yields no name.
    """
    for language, asked in data.rows.items():
        if not any(row.answers for row in asked.rows):
            continue
        task = f"dudi_{name}_{language}"
        rows = [_row(row) for row in asked.rows]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / f"{task}.jsonl", text)
        settings = _common(task, folder) | _kind(data, asked)
        write_text(folder / f"{task}.yaml", yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))
        yield task


def _row(row: TaskRow) -> dict[str, Any]:
    """Its texts are data of the templates, never templates themselves."""
    return {
        "id": row.id,
        "prompt": _prompt(row),
        "choices": list(row.answers),
        "gold": row.gold,
        "reference": row.references[0],
    }


def _prompt(row: TaskRow) -> str:
    match row.prompt:
        case str() as text:
            return text
        case (Turn(content=text),):
            return text
        case _:
            raise UsageError(
                f"task {row.task}: lm-eval can't put worked examples into turns as we do. Export it with --shots 0, or "
                "with --mode base."
            )


def _common(task: str, folder: Path) -> dict[str, Any]:
    return {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str((folder / f"{task}.jsonl").absolute())}},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "target_delimiter": "",
        "num_fewshot": 0,
    }


def _kind(data: NamedData, asked: LanguageRows) -> dict[str, Any]:
    if asked.labels and data.settings.scoring == "logprob":
        return {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "gold",
            "metric_list": [_metric("acc")],
            "metadata": {"version": 1, "differs": UNSAID["likelihood"]},
        }
    exact = _metric("exact_match") | {"ignore_case": True, "ignore_punctuation": not asked.labels}
    metrics = [exact] if asked.labels else [exact, _metric("chrf")]
    return {
        "output_type": "generate_until",
        "doc_to_target": "reference",
        "generation_kwargs": {
            "until": [asked.until or NO_STOP],
            "max_gen_toks": data.task.max_new_tokens,
            "do_sample": False,
        },
        "filter_list": [
            {
                "name": "answer",
                "filter": [
                    {"function": "regex", "regex_pattern": _pattern(asked)},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": metrics,
        "metadata": {"version": 1, "differs": UNSAID["labels" if asked.labels else "references"] + _ending(asked)},
    }  # fmt: skip


def _ending(asked: LanguageRows) -> str:
    return "; an answer that begins with a line break is empty there" if asked.until else ""


def _pattern(asked: LanguageRows) -> str:
    """The answer in a response: behind the tag, unless the prompt ends with it."""
    given = bool(asked.rows and asked.rows[0].opening)
    tag = "^" if given or not asked.tag else re.escape(asked.tag)
    if not asked.labels:
        return rf"{tag}[\s`*]*(.*)"
    return rf"(?i){tag}[\s*]*({'|'.join(map(re.escape, _longest_first(asked.labels)))})"


def _longest_first(labels: Sequence[str]) -> list[str]:
    return sorted(labels, key=lambda label: (-len(label), label))


def _metric(name: str) -> dict[str, Any]:
    return {"metric": name, "aggregation": "chrf" if name == "chrf" else "mean", "higher_is_better": True}
