"""Every kind of finding: what it means and what to do, for tools that show it beside the code."""

from typing import NamedTuple


class Kind(NamedTuple):
    """A code's meaning."""

    meaning: str
    advice: str


CODES: dict[str, Kind] = {
    # The text
    "alias": Kind("YAML aliases are not read", "Write the value again, or share it by `extends`."),
    "anchor": Kind("YAML anchors are not read", "Remove the anchor; `extends` shares values between recipes."),
    "bad-character": Kind("A character that YAML can't hold", "Remove it."),
    "bad-key": Kind("A mapping or list as a key", "Keys are texts; quote one that begins with { or [."),
    "bad-number": Kind("A number that can't be used", "Numbers are finite and of a sensible length."),
    "documents": Kind("More than one YAML document", "A recipe is one document: remove `---`."),
    "duplicate-key": Kind("A key that is there twice", "Keep one; no value is silently taken for the other."),
    "encoding": Kind("A file that is not UTF-8", "Save it as UTF-8."),
    "merge-key": Kind("YAML merge keys are not read", "Use `extends`, or write the keys out."),
    "not-a-recipe": Kind("A file that is no mapping", "A recipe is made of lines `key: value`."),
    "tag": Kind("YAML tags are not read", "Remove the tag; a recipe never makes objects."),
    "yaml": Kind("Broken YAML", "Mind the indentation, the quotes and the brackets near the place."),
    "too-deep": Kind("Nested too deeply", "A recipe needs about ten levels, and few parents."),
    "too-large": Kind("Too large for a recipe", "A recipe has a few hundred values in a few kilobytes."),
    # The recipe as a whole
    "version": Kind("Another version of the recipe language", "Use a dudi-kit that reads it, or `dudi-kit migrate`."),
    "requires": Kind("Another dudi-kit is required", "Install a version that `requires` allows."),
    "extends-cycle": Kind("A recipe that extends itself", "Break the chain of parents."),
    "missing-parent": Kind("A parent that is not there", "`extends` is relative to the file that it stands in."),
    "recipe-cycle": Kind("Recipes that need each other", "A teacher or a student must end in a model."),
    "missing-file": Kind("A file that is not there", "Paths are relative to the file that names them."),
    "bad-override": Kind("An override that is no dotted path", "Write it as `--training.seed=1`."),
    # Single fields
    "unknown-key": Kind("A key that the recipe does not have", "Take the spelling or the place that is offered."),
    "missing-key": Kind("A key that is needed", "Add it."),
    "wrong-type": Kind("A value of another type", "Write the type that is expected."),
    "wrong-length": Kind("A list of another length", "Write as many values as are expected."),
    "bad-choice": Kind("A value that is none of the allowed ones", "Choose one of them."),
    "bad-value": Kind("A value that breaks the field's rule", "The message says the rule."),
    "bad-name": Kind("A name that can't be used", "Names become folders: letters, digits, '.', '-' and '_'."),
    "bad-model-name": Kind(
        "Neither a folder nor a hub name", "Paths begin with ./, ../ or /, hub names are owner/name."
    ),
    "empty": Kind("An empty value", "Write something, or remove the key."),
    "out-of-range": Kind("A number out of its range", "The message says the bounds."),
    "outside": Kind("A folder that a recipe may not write to", "Use the option `--output` instead."),
    "unknown-task": Kind("A task that does not ship", "Name one of `dudi-kit tasks`, or a .yaml file of your own."),
    "bad-placeholder": Kind("A template that shows what is not there", "Take one of the fields that are offered."),
    "missing-placeholder": Kind("A template that does not show a field", "Put the field into it."),
    "foreign-server": Kind("A server on another machine", "Name it on the command line instead."),
    "sends": Kind("Metrics that a recipe by reference would send", "Name the project or Space on the command line."),
    # Fields together
    "duplicate": Kind("The same thing twice", "Keep one."),
    "exclusive": Kind("Keys that exclude each other", "Remove one of them."),
    "needs-best": Kind("Several scores, and none picks the best step", "Name one of them as `best`."),
    "needs-english": Kind("A demonstration without its English rows", "Say where they are, or show something else."),
    "needs-folder": Kind("Something that is written to no folder", "Name the folder."),
    "needs-key": Kind("Rows of two files, and nothing that joins them", "Name the column that both have as `key`."),
    "needs-language": Kind("Rows without a language", "Add `language` or `languages`."),
    "needs-data": Kind("A language of a task without rows", "Say where its rows are, or leave the language out."),
    "needs-examples": Kind("Worked examples that come from nowhere", "Say where they are drawn from, or ask for none."),
    "needs-labels": Kind("A score of labels for a task without labels", "Add the labels, or choose another score."),
    "needs-size": Kind("Something that needs to know how much it may take", "Say the size."),
    "needs-teacher": Kind("Something that needs a teacher", "Add a teacher, or turn it off."),
    "needs-versions": Kind("A language in which no version of a row is known", "Name the column that versions share."),
    "no-effect": Kind("A key that would do nothing", "Remove it."),
    "not-here": Kind("A key that does not belong here", "Remove it."),
    "not-divisible": Kind("Numbers that don't divide", "Choose a multiple, or a divisor."),
    "not-together": Kind("Settings that contradict each other", "Choose one of them."),
    "not-scored": Kind("A task or score that the recipe does not have", "Name one of those that are offered."),
    "nothing-to-do": Kind("A recipe that would do nothing", "Give something a weight."),
    "too-few": Kind("Fewer rows than labels", "Raise the limit, or leave the task out."),
    "too-long": Kind("More tokens than fit", "Lower the one or raise the other."),
    "unknown-engine-key": Kind("A key that DeepSpeed does not have", "Take the spelling that is offered."),
    "unpinned": Kind("A reference that moves", "Name a commit or a tag as its `revision`."),
}
"""A test holds it against the codes in the source."""
