"""SEA-HELM v1.2.1's official task set: what has to be there before a number may be called its score."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dudi_kit.recipe.schema import task as kit

Competency = Literal[
    "nlu",
    "nlr",
    "nlg",
    "instruction-following",
    "multi-turn",
    "cultural",
    "linguistic-diagnostics",
    "safety",
    "knowledge",
]

OF_COMPETENCY: dict[kit.Competency, Competency] = {
    "understanding": "nlu",
    "reasoning": "nlr",
    "generation": "nlg",
    "instruction_following": "instruction-following",
    "safety": "safety",
    "knowledge": "knowledge",
    "culture": "cultural",
}
"""Our competencies → SEA-HELM's."""

SEA_LANGUAGES = ("id", "vi", "th", "ta", "tl", "ms", "my")
"""The leaderboard's SEA mean goes over these."""


@dataclass(frozen=True)
class OfficialTask:
    """A task of the set."""

    competency: Competency
    languages: frozenset[str]
    metric: str
    """Name in `metrics.METRICS`, or what SEA-HELM uses and the kit has not: MetricX-24-XXL, or a judge."""

    group: str | None = None
    """Tasks of one group are averaged before their competency is."""


def _task(
    competency: Competency, languages: str, metric: str = "balanced_accuracy", group: str | None = None
) -> OfficialTask:
    return OfficialTask(competency, frozenset(languages.split()), metric, group)


_ALL = " ".join(SEA_LANGUAGES)

OFFICIAL = MappingProxyType(
    {
        "sentiment": _task("nlu", _ALL),
        "qa": _task("nlu", "id vi th ta", "token_f1"),
        "belebele-qa-mc": _task("nlu", "tl ms my"),
        "metaphor": _task("nlu", "id"),
        "causal": _task("nlr", "id vi th ta tl my"),
        "nli": _task("nlr", "id vi th ta tl my"),
        "translation-en-xx": _task("nlg", _ALL, "MetricX-24-XXL", "translations"),
        "translation-xx-en": _task("nlg", _ALL, "MetricX-24-XXL", "translations"),
        "abssum": _task("nlg", "id vi th ta tl my", "rouge_l"),
        "if-eval": _task("instruction-following", _ALL, "strict_pass"),
        "mt-bench-judge": _task("multi-turn", "id vi th ta tl ms", "judge"),
        "kalahi-mc": _task("cultural", "tl"),
        "kalahi-judge": _task("cultural", "tl", "judge"),
        "syntax-criteria": _task("linguistic-diagnostics", "id", "judge"),
        "mp-r": _task("linguistic-diagnostics", "id ta"),
        "pragmatic": _task("linguistic-diagnostics", "id ta"),
        "toxicity": _task("safety", "id vi th tl ms my"),
        "global_mmlu_lite": _task("knowledge", "id vi tl ms my"),
        "thai_exam": _task("knowledge", "th"),
    }
)
"""Task → its place in the set. Source: the task configurations of github.com/aisingapore/SEA-HELM."""


def official_parts(language: str, competency: str) -> frozenset[str]:
    """Tasks, or groups of tasks, that a competency is the mean of in a language."""
    return frozenset(
        task.group or name
        for name, task in OFFICIAL.items()
        if language in task.languages and task.competency == competency
    )


def official_members(language: str, group: str) -> frozenset[str]:
    """Tasks that a group is the mean of in a language."""
    return frozenset(name for name, task in OFFICIAL.items() if language in task.languages and task.group == group)


def official_competencies(language: str) -> frozenset[str]:
    """Competencies that the set measures in a language."""
    return frozenset(task.competency for task in OFFICIAL.values() if language in task.languages)
