"""Does what a run is trained on hold what it is evaluated on? Its own rows, and those of its teacher and cold start."""

from collections.abc import Iterator

from dudi_kit.console import notice
from dudi_kit.data.asked import read_answers
from dudi_kit.data.example import plain
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError
from dudi_kit.evaluate.contamination import Contamination, Detector, Item
from dudi_kit.evaluate.scores import BITS
from dudi_kit.pipeline.benchmarks import EvaluationData
from dudi_kit.plan.chain import Stage
from dudi_kit.plan.rows import training_examples

SHOWN = 3


def check_contamination(stage: Stage, data: EvaluationData, *, fail: bool) -> Contamination:
    """Compare every training row, and what teachers have written so far, with every evaluation item; say what is found.

    DataError where `fail` and an item is contaminated.
    """
    detector = Detector(_items(data))
    for needed in stage.in_order():
        _show(detector, needed)
    found = detector.found()
    if found.contaminated:
        text = _told(found)
        if fail:
            raise DataError(f"{text} Take these rows out of the training data, or evaluate on others.")
        notice(f"contamination: {text}", style="yellow")
    return found


def _items(data: EvaluationData) -> Iterator[Item]:
    for name, task in data.tasks.items():
        for example in task.examples:
            yield Item(name, example.language, str(example.origin), (plain(example.prompt), example.response))
    for name, entry in data.named.items():
        for language, asked in entry.rows.items():
            for row in asked.rows:
                yield Item(name, language, row.id, (row.question, *row.references))
    for example in data.held_out:
        yield Item(BITS, example.language, str(example.origin), (plain(example.prompt), example.response))


def _show(detector: Detector, stage: Stage) -> None:
    """All texts that a stage is trained on."""
    for example in training_examples(stage.recipe, Ledger()):
        place = f"{stage.recipe.name}: {example.origin}"
        detector.see(plain(example.prompt), example.language, "training", place)
        detector.see(example.response, example.language, "training", place)
        if example.english is not None:  # read by the teacher alone, in a demonstration
            for text in (example.english.prompt, example.english.response):
                detector.see(text, "en", "demonstration", place)
    for key, answer in read_answers([stage.run.asked]).items():
        # Its language is not kept; words are cut by script, whatever language is named.
        detector.see(answer.text, "en", "teacher", f"{stage.recipe.name}: {stage.run.asked.name} {key[:8]}")


def _told(found: Contamination) -> str:
    """`topic id: 3 of 204, …; such as …`."""
    places = [
        f"{task} {language}: {overlap.contaminated:,} of {overlap.items:,}"
        for task, languages in found.overlaps.items()
        for language, overlap in languages.items()
        if overlap.contaminated
    ]
    worst = [f"{finding.id} ({next(iter(finding.sources.values()))})" for finding in found.findings[:SHOWN]]
    return (
        f"{found.contaminated:,} evaluation items stand in the training text ({'; '.join(places)}), such as "
        f"{', '.join(worst)}."
    )
