"""Rules about the small files of a recipe: they must be there. Data and weights are looked at when planning."""

from collections.abc import Iterator

from dudi_kit.recipe.checks.complaint import Complaint, Rule
from dudi_kit.recipe.diagnostics import Path
from dudi_kit.recipe.paths import is_plain_file
from dudi_kit.recipe.schema import Recipe


def _files(recipe: Recipe) -> Iterator[tuple[Path, str]]:
    for role in ("teacher", "student"):
        model = getattr(recipe, role)
        template = getattr(model, "chat_template", None)
        if template is not None and template.endswith(".jinja"):
            yield (role, "chat_template"), template
        if hasattr(model, "recipe"):
            yield (role, "recipe"), model.recipe
    if recipe.verbalizer.vocabulary.label_words is not None:
        yield ("verbalizer", "vocabulary", "label_words"), recipe.verbalizer.vocabulary.label_words
    path: Path = ("verbalizer", "demonstration", "template")
    templates = recipe.verbalizer.demonstration.template
    if isinstance(templates, dict):
        yield from (((*path, language), file) for language, file in templates.items())
    elif templates is not None:
        yield path, templates
    if recipe.verbalizer.vocabulary.overrides is not None:
        yield ("verbalizer", "vocabulary", "overrides"), recipe.verbalizer.vocabulary.overrides


def files_are_there(recipe: Recipe) -> Iterator[Complaint]:
    """Recipes, templates and tables that this one names."""
    for path, file in _files(recipe):
        if not is_plain_file(file):
            yield Complaint(
                path, "missing-file", f"no such file: {file}", "paths are relative to the file that names them"
            )


RULES: tuple[Rule, ...] = (files_are_there,)
