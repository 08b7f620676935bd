"""Rows of named tasks: what has none is listed, and a hub that can't be reached is tried once."""

from typing import Any

import datasets
import pytest
from huggingface_hub import constants

from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError, HubUnreachable
from dudi_kit.evaluate.run_named import NamedData
from dudi_kit.pipeline import benchmarks
from dudi_kit.recipe.schema.evaluation import Evaluation, NamedTask

EVALUATION = Evaluation(tasks={name: NamedTask(task=name, languages=["id", "th"]) for name in ("topic", "sentiment")})


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_a_hub_that_can_not_be_reached_is_tried_once(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []

    def unreachable(*_: Any) -> None:
        tried.append(not (datasets.config.HF_HUB_OFFLINE and constants.HF_HUB_OFFLINE))
        raise HubUnreachable("the hub can't be reached")

    monkeypatch.setattr(benchmarks, "resolved_aloud", unreachable)
    monkeypatch.setattr(benchmarks, "load_rows", unreachable)
    found = benchmarks.read_named(EVALUATION, Ledger())
    assert tried[0], "the commit is asked for"
    assert not any(tried[1:])
    assert len(tried) == 3 + 4, "once for the commit of each of three datasets, once for each language's rows"
    assert {reason for data in found.values() for reason in data.missing.values()} == {benchmarks.NOT_REACHED}
    assert (datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE) == (False, False)


def test_each_reason_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {name: entry for name, entry in EVALUATION.tasks.items() if isinstance(entry, NamedTask)}
    missing = {"topic": {"id": "gone", "th": "gone"}, "sentiment": {"id": "gone", "th": "empty"}}
    data = {name: NamedData(None, entry, {}, missing[name]) for name, entry in tasks.items()}  # type: ignore[arg-type]
    benchmarks.tell_missing(data)
    assert capsys.readouterr().err.splitlines() == [
        "not scored: topic id th, sentiment id: gone",
        "not scored: sentiment th: empty",
    ]


def test_a_recipe_whose_task_has_no_rows_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: Any) -> None:
        raise DataError("nothing in id")

    monkeypatch.setattr(benchmarks, "load_rows", empty)
    with pytest.raises(DataError, match=r"evaluation\.tasks\.topic: no language has rows\. nothing in id"):
        benchmarks.named_data(EVALUATION, Ledger())
