"""Between sampling and the optimizer nothing of ours has the host wait for the device.

The device is `meta`: what would read a number off it fails, and every copy to it is seen, and how it was asked for.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import masking_utils

from dudi_kit.data.sending import sent
from dudi_kit.models.cache.store import Store
from dudi_kit.models.reading import FEW
from dudi_kit.train.keeping import Keeping, ReferenceAnswers, TeacherAnswers
from dudi_kit.train.metrics import Window
from dudi_kit.train.step import Models, Objective, Padding, Pair
from tests.small import ROWS as TEXTS
from tests.train.test_facing import Bench, Coarse
from tests.train.test_keeping import HIDDEN, TOP_K, learned
from tests.train.test_label_words import LABELS
from tests.train.test_objective_gradient import ITEMS, PAD, PIECES, WHOLE, models, pair, settings

META = torch.device("meta")


class Copies(TorchDispatchMode):
    """Counts copies to the device that the host waits for, and refuses those that pick by a mask."""

    waiting = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            goes = torch.device(kwargs.get("device") or "cpu").type == "meta"
            self.waiting += goes and not kwargs.get("non_blocking", False)
        elif func is torch.ops.aten.copy_.default:
            source, goes = args[1], args[0].device.type == "meta"
            self.waiting += goes and source.device.type == "cpu" and True not in (*args[2:], kwargs.get("non_blocking"))
        elif func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default):
            indices = [index for index in args[1] if index is not None]
            self.waiting += any(index.dtype == torch.bool for index in indices)  # a GPU must tell how many are true
            self.waiting += args[0].device.type == "meta" and any(index.device.type == "cpu" for index in indices)
        return func(*args, **kwargs)


class Makings(TorchFunctionMode):
    """Counts what torch copies unseen: tensors made on the device out of numbers, and lists as indices."""

    waiting = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor):
            there = isinstance(args[0], Tensor) and args[0].device.type == "meta"
            self.waiting += kwargs.get("device") not in (None, torch.device("cpu")) and not there
        elif func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device.type == "meta":
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.waiting += any(isinstance(part, (list, np.ndarray)) for part in index)
        return func(*args, **kwargs)


@contextmanager
def never_waiting() -> Iterator[None]:
    with Makings() as makings, Copies() as copies:
        yield
    assert (copies.waiting, makings.waiting) == (0, 0)


def placed(model: Any) -> Any:
    """A copy on the device. Eager attention, which takes any mask: see `_as_if_transformers_had_looked`."""
    there = copy.deepcopy(model).to(META)
    there.set_attn_implementation("eager")
    rotary = there.model.rotary_emb
    for name, value in vars(rotary).items():
        if isinstance(value, Tensor):
            setattr(rotary, name, value.to(META))
    return there


def waits_in_a_step(objective: Objective, asked: Models, pairs: list[Pair]) -> int:
    """How often, as the loop does it from the counts on, with what it notes for its log."""
    counts = {name: torch.ones((), dtype=torch.float64, device=META) for name in objective.weights}
    window = Window(["id"], META)
    with Makings() as makings, Copies() as copies, ExitStack() as until_backward:
        outcome = objective(asked, pairs, counts, until_backward)
        outcome.loss.backward()
        for name, result in outcome.results.items():
            window.add_signal(name, result, ["id"] * len(pairs), ["none"] * len(pairs))
    return copies.waiting + makings.waiting


@pytest.fixture(autouse=True)
def _as_if_transformers_had_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda at_BT: (at_BT == 0).cumsum(-1))


@pytest.fixture(scope="module")
def there() -> Models:
    return Models(*(placed(model) for model in models()))


ROWS = [pair(i, item) for i, item in enumerate(ITEMS)]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("few", [0, FEW])
def test_all_signals(there, few, packing):
    options = {"few": few, "packing": packing}
    objective = Objective(settings(WHOLE), padding=Padding(PAD, PAD), pieces=PIECES, **options)
    assert waits_in_a_step(objective, there, ROWS) == 0


def test_label_words(there):
    rows = [each._replace(row=replace(each.row, labels=LABELS)) for each in ROWS]
    objective = Objective(settings(WHOLE), padding=Padding(PAD, PAD), pieces=PIECES, with_labels=True)
    assert waits_in_a_step(objective, there, rows) == 0


@pytest.mark.parametrize("cache", [HIDDEN, TOP_K], ids=["hidden", "top_k"])
def test_answers_that_are_kept(there, cache, tmp_path: Path):
    def keeping(device: torch.device) -> Keeping:
        answers = TeacherAnswers(Store(tmp_path / "teacher", {"a": 1}), cache, PAD, device)
        if device.type == "cpu":
            answers.begin(models().teacher, [each.row for each in ROWS])  # type: ignore[arg-type]
        kept = ReferenceAnswers(Store(tmp_path / "reference", {"a": 1}))
        return Keeping(answers, kept, [each.row for each in ROWS], range(len(ROWS)), leaves=False)

    asked = keeping(torch.device("cpu"))
    learned(models(), asked)  # they are written once, and that waits
    asked.write()
    kept = keeping(META)
    objective = Objective(settings(WHOLE), padding=Padding(PAD, PAD), pieces=PIECES, keeping=kept)
    assert waits_in_a_step(objective, there, ROWS) == 0


@pytest.mark.parametrize("mapping", ["remap", "align"])
def test_two_vocabularies(mapping):
    """Under `align` with spans."""
    if mapping == "align":
        bench: Bench = Coarse()
    else:
        bench = Bench(torch.randperm(Bench().size, generator=torch.Generator().manual_seed(3)).tolist())
    joint = bench.decided(mapping)
    signals = settings(replace(WHOLE, alpha=0.0))
    padding = Padding(bench.student.pad_id, bench.teacher.pad_id)
    objective = Objective(signals, padding=padding, pieces=None, mapped=joint)
    pairs = [bench._pair(i, row, joint, objective) for i, row in enumerate(TEXTS)]
    asked = Models(placed(bench.models.student), placed(bench.models.teacher), None)
    objective(asked, pairs, objective.counts(pairs))  # sends the tables of the mapping, once in a run
    assert waits_in_a_step(objective, asked, pairs) == 0


@pytest.mark.parametrize(
    "waits",
    [
        lambda there: torch.arange(3).to(META),
        lambda there: torch.tensor([1, 2], device=META),
        lambda there: there[[0, 1]],
        lambda there: there[torch.tensor([0, 1])],
        lambda there: there.__setitem__(there > 0, 1.0),
        lambda there: there.copy_(torch.ones(3)),
    ],
)
def test_what_waits_is_seen(waits):
    on_device = torch.ones(3, device=META)
    with pytest.raises(AssertionError), never_waiting():
        waits(on_device)


@pytest.mark.parametrize("numbers", [[1, 2], np.arange(2), torch.arange(2)], ids=["list", "array", "tensor"])
def test_numbers_are_sent_without_waiting(numbers):
    with never_waiting():
        there = sent(numbers, META, torch.float64)
    assert (there.device, there.dtype) == (META, torch.float64)
    assert sent(there, META) is there


def test_to_a_gpu_numbers_go_out_of_pinned_memory(monkeypatch):
    """There is none here: what it is asked for stands in for it."""
    asked: list[Any] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda here: asked.append("pinned") or here)
    monkeypatch.setattr(Tensor, "to", lambda here, device, non_blocking: asked.append((device, non_blocking)) or here)
    sent([1, 2], torch.device("cuda:1"))
    assert asked == ["pinned", (torch.device("cuda:1"), True)]
