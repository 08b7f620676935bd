"""A student that is cut from a bigger model, decided before a weight is loaded: its layers, pieces and tokenizer.

The pieces are chosen by the training rows and `student.vocabulary.extra`. How the trimmed tokenizer writes the texts of
the held-out rows and tasks, which it was not chosen by, is measured and reported.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import NamedTuple

from pydantic import ValidationError
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example, Turn
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.load import load_examples
from dudi_kit.data.trim import Pieces
from dudi_kit.errors import RunDirectoryError
from dudi_kit.models.prune import Cut, chosen_layers, cut_config, taken
from dudi_kit.models.scratch import count_parameters
from dudi_kit.plan.layout import RunDir, write_text
from dudi_kit.plan.models import config_of, given, tokenizer_of
from dudi_kit.plan.schema import PlannedPruning, PrunedLanguage
from dudi_kit.plan.shape import shape_of
from dudi_kit.recipe.derive import trimming
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.base import Strict
from dudi_kit.recipe.schema.data import Dataset
from dudi_kit.recipe.schema.evaluation import Task
from dudi_kit.recipe.schema.models import PrunedStudent


class Pruning(Strict):
    """What is decided, as it lies in the run directory."""

    layers: list[int]
    rows: list[int] | None
    """Old ids of the pieces, in the order of the new ones; None: all."""

    planned: PlannedPruning

    @property
    def cut(self) -> Cut:
        """What stays of the model."""
        return Cut(tuple(self.layers), None if self.rows is None else tuple(self.rows))


class Read(NamedTuple):
    """A text as the student reads it: the turns of a prompt, or a response."""

    language: str
    text: tuple[Turn, ...] | str


Ids = dict[Read, "array[int]"]


def decide_pruning(
    recipe: Recipe, student: PrunedStudent, examples: Iterable[Example], run: RunDir, ledger: Ledger
) -> PreTrainedTokenizerBase:
    """Choose layers and pieces, keep them in the run directory, and give the student's tokenizer.

    examples: the training rows. ModelError: the model or its tokenizer can't be cut as the recipe asks.
    """
    source = given(student, "fp32")
    config, tokenizer = config_of(source, who="student"), tokenizer_of(source, who="student")
    layers = chosen_layers(student.layers, config.num_hidden_layers)
    settings = trimming(student)
    if settings is None:
        cut, made, common = Cut(layers, None), tokenizer, 0
        languages: dict[str, PrunedLanguage] = {}
    else:
        whole = Encoder(tokenizer, who="student")
        extra = _examples(recipe, settings.extra, ledger)
        texts = _read(whole, [*examples, *extra])
        pieces = Pieces(tokenizer, config.vocab_size)
        by_language = _used(texts, settings.min_count)
        needed = {code: pieces.closed(used) for code, used in by_language.items()}
        always = pieces.always(_letters(texts)) | set(whole.stop_ids)
        kept = always.union(*needed.values())
        cut = Cut(layers, tuple(sorted(i for i in kept if i < config.vocab_size)))
        made, _ = pieces.trimmed(kept, cut_config(config, cut).save_pretrained)
        languages = _languages(texts, _read(whole, _others(recipe)), needed, cut, Encoder(made, who="student"))
        common = len(always.difference(*needed.values()))
    taken(config, cut)  # refuses what can't be cut
    planned = _planned(source.path, config, cut, common, languages)
    pruning = Pruning(layers=list(layers), rows=None if cut.rows is None else list(cut.rows), planned=planned)
    write_text(run.pruning, pruning.model_dump_json() + "\n")
    return made


def read_pruning(run: RunDir) -> Pruning:
    """What was decided for a run; RunDirectoryError where it is not there."""
    try:
        return Pruning.model_validate_json(run.pruning.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise RunDirectoryError(
            f"{run.pruning} is missing or damaged: plan the recipe again, or start again with --overwrite."
        ) from error


def pruned_config(student: PrunedStudent, run: RunDir) -> PreTrainedConfig:
    """The configuration of the smaller model of a planned run."""
    return cut_config(config_of(given(student, "fp32"), who="student"), read_pruning(run).cut)


def _examples(recipe: Recipe, datasets: Mapping[str, Dataset], ledger: Ledger) -> list[Example]:
    read = (
        load_examples(name, rows, on_bad_row=recipe.data.on_bad_row, ledger=ledger) for name, rows in datasets.items()
    )
    return [example for examples in read for example in examples]


def _others(recipe: Recipe) -> list[Example]:
    """Rows of the held-out data and of the recipe's own tasks. What is left out is counted when they are scored."""
    tasks = {name: task.data for name, task in recipe.evaluation.tasks.items() if isinstance(task, Task)}
    return [*_examples(recipe, recipe.data.held_out, Ledger()), *_examples(recipe, tasks, Ledger())]


def _read(encoder: Encoder, examples: Iterable[Example]) -> Ids:
    """The token ids of each text, each once."""
    found: Ids = {}
    for example in examples:
        for read in _texts(example):
            if read not in found:
                found[read] = array("i", _ids(encoder, read.text))
    return found


def _texts(example: Example) -> Iterator[Read]:
    """What the student reads; the English version is for the teacher."""
    yield Read(example.language, example.prompt)
    yield Read(example.language, example.response)


def _ids(encoder: Encoder, text: tuple[Turn, ...] | str) -> list[int]:
    return encoder.response_ids(text) if isinstance(text, str) else encoder.prompt_ids(text)


def _used(texts: Ids, min_count: int) -> dict[str, set[int]]:
    """Language → pieces that its texts use, if all texts together use them so often."""
    counts: Counter[int] = Counter()
    used: dict[str, set[int]] = {}
    for read, ids in texts.items():
        counts.update(ids)
        used.setdefault(read.language, set()).update(ids)
    return {code: {i for i in pieces if counts[i] >= min_count} for code, pieces in used.items()}


def _letters(texts: Ids) -> set[str]:
    found: set[str] = set()
    for read in texts:
        found.update(*((read.text,) if isinstance(read.text, str) else (turn.content for turn in read.text)))
    return found


class _Compared(NamedTuple):
    """Texts of one language under both tokenizers."""

    texts: int = 0
    same: int = 0
    before: int = 0
    after: int = 0


def _compared(texts: Ids, cut: Cut, trimmed: Encoder) -> dict[str, _Compared]:
    assert cut.rows is not None
    found: dict[str, _Compared] = {}
    for read, before in texts.items():
        after = _ids(trimmed, read.text)
        so_far = found.get(read.language, _Compared())
        same = list(before) == [cut.rows[i] for i in after]
        sizes = (1, int(same), len(before), len(after))
        found[read.language] = _Compared(*(a + b for a, b in zip(so_far, sizes, strict=True)))
    return found


def _languages(
    texts: Ids, others: Ids, needed: Mapping[str, Set[int]], cut: Cut, trimmed: Encoder
) -> dict[str, PrunedLanguage]:
    own, other = _compared(texts, cut, trimmed), _compared(others, cut, trimmed)
    languages = {}
    for code in sorted(own.keys() | other.keys()):
        mine, theirs = own.get(code, _Compared()), other.get(code, _Compared())
        pieces = needed.get(code, set())
        languages[code] = PrunedLanguage(
            texts=mine.texts,
            same=mine.same,
            tokens_before=mine.before,
            tokens_after=mine.after,
            other_texts=theirs.texts,
            other_same=theirs.same,
            other_tokens_before=theirs.before,
            other_tokens_after=theirs.after,
            pieces=len(pieces),
            own_pieces=len(pieces - set().union(*(more for name, more in needed.items() if name != code))),
        )
    return languages


def _planned(
    model: str, config: PreTrainedConfig, cut: Cut, common: int, languages: dict[str, PrunedLanguage]
) -> PlannedPruning:
    made = cut_config(config, cut)
    before, after = count_parameters(config), count_parameters(made)
    shapes = shape_of(config, before), shape_of(made, after)
    return PlannedPruning(
        model=model,
        layers=list(cut.layers),
        layers_before=config.num_hidden_layers,
        rows_before=config.vocab_size,
        rows_after=made.vocab_size,
        common_pieces=common,
        parameters_before=before,
        parameters_after=after,
        embeddings_before=shapes[0].embeddings,
        embeddings_after=shapes[1].embeddings,
        piece_parameters=shapes[1].embeddings // made.vocab_size,
        languages=languages,
    )
