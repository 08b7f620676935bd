"""Runs side by side: the same items, the same seeds as one side, and what can't be compared is said."""

import json
from pathlib import Path

import pytest
from scipy import stats

from dudi_kit.cli import app
from dudi_kit.errors import RunDirectoryError
from dudi_kit.evaluate.scores import AnswerRow, save_answers
from dudi_kit.plan.layout import RunDir
from dudi_kit.report.across import compare_runs, sides_of

LABELS = ("ya", "tidak")


def _run(
    folder: Path, right: list[bool], *, seed: int = 0, rate: float = 1e-4, who: str = "after", first: int = 0
) -> Path:
    run = RunDir(folder)
    run.path.mkdir(exist_ok=True)
    recipe = {"name": folder.name, "training": {"seed": seed, "learning_rate": rate}}
    run.resolved.write_text(json.dumps(recipe), encoding="utf-8")
    rows = [
        AnswerRow(
            task="nli", language="id", id=str(first + i), prompt="?", reference=LABELS[i % 2], answer="", correct=hit,
            null=False, truncated=False, tokens=1, value=100.0 * hit, stratum=LABELS[i % 2],
        )
        for i, hit in enumerate(right)
    ]  # fmt: skip
    save_answers(rows, run.evaluation / f"{who}.answers.jsonl")
    return folder


def test_paired_difference_by_hand(tmp_path: Path) -> None:
    """40 items; 10 are right in the second alone, 2 in the first alone: McNemar's exact p."""
    both = [True] * 14 + [False] * 14
    one = _run(tmp_path / "one", both + [False] * 10 + [True] * 2)
    two = _run(tmp_path / "two", both + [True] * 10 + [False] * 2, rate=2e-4)
    (line,) = compare_runs(sides_of([one, two], "after")).lines
    first, second = line.standings
    assert (line.task, line.language, line.items) == ("nli", "id", 40)
    assert (first.value, second.value) == (pytest.approx(40), pytest.approx(60))
    assert first.difference is None
    assert second.difference is not None
    assert second.difference.value == pytest.approx(20)
    assert second.p == pytest.approx(stats.binomtest(2, 12, 0.5).pvalue, abs=0.01)


def test_seeds_are_one_side(tmp_path: Path) -> None:
    runs = [_run(tmp_path / f"s{seed}", [True] * (10 + seed) + [False] * (10 - seed), seed=seed) for seed in range(3)]
    other = _run(tmp_path / "other", [True] * 20, rate=1.0)
    sides = sides_of([*runs, other], "after")
    assert [side.label for side in sides] == ["s0 (+2 seeds)", "other"]
    (line,) = compare_runs(sides).lines
    assert line.standings[0].value == pytest.approx(55)
    assert line.standings[0].interval is not None


def test_one_run_compares_its_own_models(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run", [True] * 8 + [False] * 2)
    _run(folder, [False] * 8 + [True] * 2, who="before")
    sides = sides_of([folder], "after")
    assert [side.label for side in sides] == ["before", "after"]
    assert compare_runs(sides).lines[0].standings[1].difference is not None


def test_items_that_only_some_have_are_left_out_and_said(tmp_path: Path) -> None:
    one = _run(tmp_path / "one", [True] * 10)
    two = _run(tmp_path / "two", [True] * 10, rate=2e-4, first=4)
    found = compare_runs(sides_of([one, two], "after"))
    assert [line.items for line in found.lines] == [6]
    assert found.remarks == ["nli in id: 8 of 14 items not in all"]


def test_runs_without_common_items_have_no_line(tmp_path: Path) -> None:
    one = _run(tmp_path / "one", [True] * 10)
    two = _run(tmp_path / "two", [True] * 10, rate=2e-4, first=50)
    found = compare_runs(sides_of([one, two], "after"))
    assert found.lines == []
    assert found.remarks == ["nli in id: no item that all have answered"]


def test_a_run_that_was_not_evaluated_is_named(tmp_path: Path) -> None:
    one, two = (_run(tmp_path / name, [True] * 4, rate=rate) for name, rate in (("one", 1.0), ("two", 2.0)))
    (RunDir(two).evaluation / "after.answers.jsonl").unlink()
    with pytest.raises(RunDirectoryError, match=r"two has no answers of 'after': call `dudi-kit evaluate`"):
        sides_of([one, two], "after")


def test_the_command_prints_stars_and_a_legend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = _run(tmp_path / "one", [False] * 40)
    two = _run(tmp_path / "two", [True] * 40, rate=2e-4)
    assert not app(["compare", str(one), str(two)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "+100.0" in said
    assert "***" in said
    assert not app(["compare", str(one), str(two), "--format", "json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["lines"][0]["items"] == 40


def test_a_folder_that_is_not_there_is_not_one_without_answers(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"mistyped: no such folder"):
        sides_of([tmp_path / "mistyped"], "after")
