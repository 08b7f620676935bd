"""Prompts of the user's SEA-HELM checkout, read from its `seahelm_tasks/**/config.yaml`.

Layout as of v1.2.1: task → `languages` → code → `prompt_template` with `preamble`, `task_template`, `answer_template`
and `answer_tag`, with Python's `{name}` placeholders. Its prompts are not ours to ship: they are read where they lie.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dudi_kit.errors import DataError
from dudi_kit.evaluate.prompts import SEPARATOR, Frame, fill
from dudi_kit.recipe.schema.task import Mode, TaskFile
from dudi_kit.recipe.task_files import PLACEHOLDER
from dudi_kit.recipe.task_places import SEAHELM_TASKS, prompt_files

KEYS = ("preamble", "task_template", "answer_template", "answer_tag")
MOST_FILES = 2_000
LARGEST = 1 << 20
"""Bytes of a config."""


def seahelm_frame(task: TaskFile, language: str, mode: Mode, home: Path) -> Frame | None:
    """The frame of SEA-HELM's own prompt; None where it has none for this task and language.

    DataError: the folder is no checkout, its prompt lacks a part, shows a field that our rows lack, or does not offer
    one of our label words: then answers would be parsed for words that nobody told the model.
    """
    if task.seahelm is None:
        return None
    template, file = _templates(home).get(task.seahelm, {}).get(language, (None, None))
    if template is None:
        return None
    where = f"{file}: {task.seahelm}, {language}"
    if not isinstance(template, dict) or not all(isinstance(template.get(key), str) for key in KEYS):
        raise DataError(f"{where}: prompt_template has not the four texts {', '.join(KEYS)}.")
    preamble, question, answer, tag = (template[key] for key in KEYS)
    unknown = sorted({*PLACEHOLDER.findall(question)} - {*task.fields, "answer_tag"})
    if unknown:
        raise DataError(f"{where}: shows {{{unknown[0]}}}, which rows of {task.name} lack ({', '.join(task.fields)}).")
    labels = {**task.labels_in(language), **task.languages[language].seahelm_labels}
    text = fill(f"{preamble}\n{question}", {"answer_tag": tag})
    missing = [word for word in labels.values() if word.lower() not in text.lower()]
    if missing:
        raise DataError(
            f"{where}: the prompt does not offer the label {missing[0]!r}. Say in the task file what it is called "
            f"there, in languages.{language}.seahelm_labels, or leave evaluation.seahelm_home out."
        )
    return Frame(
        lead=fill(preamble, {"answer_tag": tag}),
        question=fill(question, {"answer_tag": tag}),
        answer=answer or "{label}",
        answer_tag=tag,
        tag_is_given=False,
        separator=SEPARATOR,  # its chat_templates/base_model.jinja joins messages so, and ends with one
        labels=labels,
        until=None if mode == "instruct" else SEPARATOR,
    )


def prompt_file(task: TaskFile, language: str, home: Path) -> Path | None:
    """The file of SEA-HELM's own prompt; None where it has none."""
    return _templates(home).get(task.seahelm or "", {}).get(language, (None, None))[1]


@cache
def _templates(home: Path) -> Mapping[str, Mapping[str, tuple[Any, Path]]]:
    """Task → language → (prompt template, file)."""
    folder = home / SEAHELM_TASKS
    if not folder.is_dir():
        raise DataError(f"{home} is no checkout of SEA-HELM: there is no folder {SEAHELM_TASKS} in it.")
    found: dict[str, dict[str, tuple[Any, Path]]] = {}
    files = prompt_files(home)
    if len(files) > MOST_FILES:
        raise DataError(f"{folder}: more than {MOST_FILES:,} configs; SEA-HELM has a few hundred.")
    for file in files:
        for name, config in _config(file).items():
            languages = config.get("languages") if isinstance(config, dict) else None
            if isinstance(languages, dict):  # else "${other.languages}", of a variant of the same task
                for language, settings in languages.items():
                    template = settings.get("prompt_template") if isinstance(settings, dict) else None
                    found.setdefault(str(name), {})[str(language)] = (template, file)
    return found


def _config(file: Path) -> dict[str, Any]:
    if file.stat().st_size > LARGEST:
        raise DataError(f"{file}: larger than {LARGEST >> 20} MiB; no config of SEA-HELM is.")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: can't be read as YAML: {error}") from error
    return values if isinstance(values, dict) else {}
