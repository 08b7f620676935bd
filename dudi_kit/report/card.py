"""The model card: what a stranger who finds the weights has to know, as Markdown with YAML front matter."""

from collections.abc import Mapping
from typing import Any

import yaml

from dudi_kit.report.compare import MEAN, Comparison, compare, number, without_table
from dudi_kit.report.facts import describe_model, headline
from dudi_kit.report.read import SUBJECTS, RunFiles
from dudi_kit.report.terminal import language_name

LIMITATIONS = """\
- A small model: it makes mistakes that read well. Check what it says before anybody relies on it.
- It was measured only on the tasks and languages above; nothing is known about others.
- It may repeat errors and biases of its teacher and of its training data.
- No safety evaluation was made."""


def model_card(run: RunFiles) -> str:
    """The text of `final/README.md`."""
    comparisons = compare(run.scores)
    sections = [
        f"# {_inline(run.name)}",
        _inline(str(run.recipe.get("description") or "")),
        "A student distilled with dudi-kit by dual-level distillation (DuDi, arXiv 2606.04694).",
        "\n".join(f"- {what}: {_inline(value)}" for what, value in headline(run)),
        "## Scores",
        "\n\n".join(map(_table, comparisons)) or "Nothing was evaluated: no scores are known.",
        "\n".join(f"- {_inline(remark)}" for remark in without_table(run.scores)),
        "## How it was made",
        _making(run),
        "## Limitations",
        LIMITATIONS,
        "## Licence",
        "Unknown: dudi-kit can't tell. It depends on the licences of the teacher, of the student's starting weights "
        "and of the training data. Set it here before you share the model.",
    ]
    return _front_matter(run, comparisons) + "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(run: RunFiles, comparisons: list[Comparison]) -> str:
    languages = {row.language for comparison in comparisons for row in comparison.rows}
    matter: dict[str, Any] = {
        "language": sorted(languages - {MEAN}),
        "base_model": _hub_models(run.recipe),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "unknown",
        "tags": ["distillation", "dudi-kit"],
    }
    kept = {key: value for key, value in matter.items() if value}
    return f"---\n{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)}---\n\n"


def _hub_models(recipe: Mapping[str, Any]) -> list[str]:
    """Hub names of student and teacher; a folder on somebody's disk is nobody else's base model."""
    sections = [recipe.get("student"), recipe.get("teacher")]
    names = [str(section["model"]) for section in sections if isinstance(section, Mapping) and section.get("model")]
    return [name for name in names if name.count("/") == 1 and name[0] not in "./~"]


def _making(run: RunFiles) -> str:
    student = describe_model(run.recipe.get("student")) or "the student of the recipe"
    teacher = describe_model(run.recipe.get("teacher")) or "no teacher that is known"
    steps = f" in {run.steps[-1]['step']:,} steps" if run.steps else ""
    text = f"From `{_inline(student)}`, taught by `{_inline(teacher)}`{steps}."
    if run.recipe_text is None:
        return f"{text} The recipe's text was not found."
    fence = "`" * max(3, _longest_run(run.recipe_text, "`") + 1)
    return f"{text} The recipe:\n\n{fence}yaml\n{run.recipe_text.rstrip()}\n{fence}"


def _table(comparison: Comparison) -> str:
    lines = [
        f"**{_inline(comparison.title)}**",
        "",
        "| language | " + " | ".join(SUBJECTS) + " | after − before |",
        "|---" + "|---:" * (len(SUBJECTS) + 1) + "|",
    ]
    for row in comparison.rows:
        cells = [_inline(language_name(row.language))]
        for subject in SUBJECTS:
            text = number(row.scores[subject].value if subject in row.scores else None, comparison.digits)
            cells.append(f"**{text}**" if subject in row.best else text)
        lines.append(f"| {' | '.join(cells)} | {number(row.change, comparison.digits, signed=True)} |")
    return "\n".join([*lines, *(f"\n{_inline(remark)}" for remark in comparison.remarks)])


def _inline(text: str) -> str:
    """One line that is neither markup nor a table's border."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _longest_run(text: str, character: str) -> int:
    longest = run = 0
    for letter in text:
        run = run + 1 if letter == character else 0
        longest = max(longest, run)
    return longest
