"""Rules that span fields: small functions, each of which yields a complaint for one way to contradict oneself.

They take a valid `Recipe`; where the user's has mistakes, a healed one (`heal`), and a complaint that rests on a field
that was healed is dropped. So all findings come out at once, and none is a consequence of another. A new rule is a
function, and a line in its module's RULES.
"""

from collections.abc import Iterable

from dudi_kit.recipe.checks import (
    adapters,
    data,
    demonstration,
    during,
    engine,
    files,
    models,
    objective,
    run,
    tasks,
    watching,
)
from dudi_kit.recipe.checks.complaint import Rule
from dudi_kit.recipe.diagnostics import Path, Problem
from dudi_kit.recipe.schema import Recipe

RULES: tuple[Rule, ...] = (
    *models.RULES,
    *adapters.RULES,
    *data.RULES,
    *demonstration.RULES,
    *objective.RULES,
    *run.RULES,
    *engine.RULES,
    *watching.RULES,
    *files.RULES,
    *tasks.RULES,
    *during.RULES,
)


def check(recipe: Recipe, faulty: Iterable[Path] = ()) -> list[Problem]:
    """All complaints about the recipe, but for those that rest on a faulty path."""
    doubtful = set(faulty)
    complaints = [complaint for rule in RULES for complaint in rule(recipe)]
    return [
        Problem(c.path, c.code, c.message, c.hint, c.severity, c.at_key)
        for c in complaints
        if not any(path[:end] in doubtful for path in (c.path, *c.needs) for end in range(1, len(path) + 1))
    ]
