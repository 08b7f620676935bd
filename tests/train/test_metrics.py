"""What is logged: sums by language, and a file that a resumed run goes on from."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dudi_kit.signals.divergences import jsd
from dudi_kit.signals.result import SignalResult, Sums
from dudi_kit.signals.token import OBSERVED, OverPieces
from dudi_kit.train.metrics import Window, append_line, cut_after
from tests.train.bench import leaves


def window() -> Window:
    return Window(["id", "th", "vi"], torch.device("cpu"))


def sums(total: list[float], count: list[int]) -> Sums:
    return Sums(torch.tensor(total), torch.tensor(count))


def result(total: list[float], count: list[int], **metrics: Sums) -> SignalResult:
    return SignalResult(torch.tensor(total).requires_grad_(), torch.tensor(count), metrics)


def read_line(kept: Window, **weights: float) -> dict:
    return kept.summary(kept.read_out(), weights)


# --- the window


def test_means_are_over_items_and_not_over_rows_or_languages():
    kept = window()
    kept.add_signal("sft", result([6.0, 1.0, 3.0], [3, 1, 1]), ["id", "th", "id"])
    line = read_line(kept, sft=1.0)
    signal = line["signals"]["sft"]
    assert signal["loss"] == pytest.approx(10 / 5)
    assert signal["by_language"] == pytest.approx({"id": 9 / 4, "th": 1.0})
    assert signal["count"] == 5


def test_micro_batches_and_steps_add_up():
    kept, whole = window(), window()
    whole.add_signal("sft", result([6.0, 1.0, 3.0], [3, 1, 1]), ["id", "th", "id"])
    kept.add_signal("sft", result([6.0], [3]), ["id"])
    kept.add_signal("sft", result([1.0, 3.0], [1, 1]), ["th", "id"])
    assert read_line(kept, sft=1.0) == read_line(whole, sft=1.0)


def test_the_loss_is_the_weighted_sum_of_the_signals_and_each_stands_unweighted():
    kept = window()
    kept.add_signal("sequence", result([1.0, 3.0], [1, 1]), ["id", "vi"])
    kept.add_signal("on_policy", result([4.0, 4.0], [3, 5]), ["id", "vi"])
    line = read_line(kept, sequence=0.5, on_policy=2.0)
    assert line["signals"]["sequence"]["loss"] == pytest.approx(2.0)
    assert line["signals"]["on_policy"]["loss"] == pytest.approx(1.0)
    assert line["loss"] == pytest.approx(0.5 * 2 + 2 * 1)
    assert line["signals"]["on_policy"]["weight"] == 2.0


def test_metrics_of_a_signal_stand_below_it_and_rollouts_apart():
    kept = window()
    kept.add_signal("sequence", result([1.0], [1], margin=sums([4.0], [1]), accuracy=sums([1.0], [1])), ["th"])
    kept.add("rollout.tokens", sums([7.0, 9.0], [1, 1]), ["th", "id"])
    line = read_line(kept, sequence=1.0)
    assert line["signals"]["sequence"]["metrics"] == {
        "margin": {"all": 4.0, "by_language": {"th": 4.0}},
        "accuracy": {"all": 1.0, "by_language": {"th": 1.0}},
    }
    assert line["rollouts"] == {"tokens": {"all": 8.0, "by_language": {"id": 9.0, "th": 7.0}}}


def test_a_signal_that_asks_the_teacher_stands_by_what_the_teacher_was_shown():
    kept = window()
    on_policy = result([6.0, 1.0, 3.0], [3, 1, 1], reverse_kl=sums([3.0, 2.0, 4.0], [3, 1, 1]))
    kept.add_signal("on_policy", on_policy, ["id", "th", "id"], ["parallel", "parallel", "none"])
    signal = read_line(kept, on_policy=1.0)["signals"]["on_policy"]
    assert signal["loss"] == pytest.approx(2.0)
    assert signal["by_language"] == pytest.approx({"id": 9 / 4, "th": 1.0})
    assert signal["by_source"] == {
        "parallel": {"all": 7 / 4, "by_language": {"id": 2.0, "th": 1.0}},
        "none": {"all": 3.0, "by_language": {"id": 3.0}},
    }
    assert signal["metrics"]["reverse_kl"] == {
        "all": 9 / 5,
        "by_language": {"id": 7 / 4, "th": 2.0},
        "by_source": {
            "parallel": {"all": 5 / 4, "by_language": {"id": 1.0, "th": 2.0}},
            "none": {"all": 4.0, "by_language": {"id": 4.0}},
        },
    }


def token_signal(student_BTV: Tensor, teacher_BTV: Tensor, mask_BT: Tensor) -> SignalResult:
    """A divergence over the tokens of some rows."""
    compared = OverPieces(jsd(0.3))(student_BTV[mask_BT], teacher_BTV[mask_BT])
    row_n = mask_BT.nonzero(as_tuple=True)[0]

    def by_row(values_n: Tensor) -> Tensor:
        return values_n.new_zeros(len(mask_BT)).index_add(0, row_n, values_n)

    observed = dict(zip(OBSERVED, compared.observed_n4.unbind(-1), strict=True))
    metrics = {name: Sums(by_row(values_n), mask_BT.sum(-1)) for name, values_n in observed.items()}
    return SignalResult(by_row(compared.value_n), mask_BT.sum(-1), metrics)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_is_measured_does_not_depend_on_how_the_batch_is_split(ranks, size):
    student, teacher = torch.randn(2, 6, 4, 30, generator=torch.Generator().manual_seed(0)).double().unbind()
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    languages, sources = ["id", "th", "vi", "id", "th", "th"], ["pool", "none", "pool", "none", "pool", "pool"]

    def measured(kept: Window, rows: slice) -> None:
        signal = token_signal(student[rows], teacher[rows], mask[rows])
        kept.add_signal("on_policy", signal, languages[rows], sources[rows])

    whole = window()
    measured(whole, slice(0, 6))
    tables = []
    for rank in range(ranks):
        share = range(rank * 6 // ranks, (rank + 1) * 6 // ranks)
        kept = window()
        for start in share[::size]:
            measured(kept, slice(start, min(start + size, share.stop)))
        tables.append(kept.read_out())
    added = {name: sum(table[name] for table in tables) for name in tables[0]}  # what all_reduce does
    line, expected = (whole.summary(sums, {"on_policy": 1.0}) for sums in (added, whole.read_out()))
    assert leaves(line) == pytest.approx(leaves(expected), rel=1e-12)
    assert line["signals"]["on_policy"]["metrics"]["top10_overlap"]["by_source"].keys() == {"pool", "none"}


def test_a_signal_that_asks_nobody_has_no_sources():
    kept = window()
    kept.add_signal("sft", result([1.0], [1]), ["id"], ["none"])
    assert "by_source" not in read_line(kept, sft=1.0)["signals"]["sft"]


def test_without_rollouts_the_line_has_none():
    kept = window()
    kept.add_signal("sft", result([1.0], [1]), ["th"])
    assert "rollouts" not in read_line(kept, sft=1.0)


def test_a_language_without_a_valid_item_has_no_mean():
    kept = window()
    kept.add_signal("sft", result([0.0, 2.0], [0, 1]), ["id", "th"])
    assert read_line(kept, sft=1.0)["signals"]["sft"]["by_language"] == {"th": 2.0}


def test_nothing_valid_at_all_is_a_loss_of_0():
    kept = window()
    kept.add_signal("sft", result([0.0], [0]), ["id"])
    assert read_line(kept, sft=1.0)["loss"] == 0.0


def test_reading_starts_the_next_window_and_holds_no_graph():
    kept = window()
    kept.add_signal("sft", result([5.0], [1]), ["id"])
    first: dict[str, Tensor] = kept.read_out()
    assert not any(table.requires_grad for table in first.values())
    kept.add_signal("sft", result([1.0], [1]), ["id"])
    assert read_line(kept, sft=1.0)["loss"] == 1.0


def test_a_line_is_plain_json():
    kept = window()
    kept.add_signal("sft", result([5.0], [2]), ["id"])
    line = read_line(kept, sft=1.0)
    assert json.loads(json.dumps(line, allow_nan=False)) == line


def test_long_sums_do_not_lose_small_terms():
    kept = window()
    for _ in range(10):
        kept.add("rollout.tokens", sums([1e8, 1.0], [1, 1]), ["id", "id"])
    total = kept.read_out()["rollout.tokens"].sum(0)[0]
    assert total.tolist() == [1e9 + 10, 20]


# --- the file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def steps(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.read_text(encoding="utf-8").splitlines()]


def test_lines_are_appended_as_they_are_given(file):
    for step in (1, 2):
        append_line(file, {"step": step, "note": "ราคาข้าว"})
    assert steps(file) == [1, 2]
    assert "ราคาข้าว" in file.read_text(encoding="utf-8")


def test_lines_after_the_checkpoint_are_dropped(file):
    for step in range(1, 7):
        append_line(file, {"step": step})
    cut_after(file, 4)
    assert steps(file) == [1, 2, 3, 4]
    cut_after(file, 0)
    assert steps(file) == []


@pytest.mark.parametrize("broken", ['{"step": 5, "lo', '{"loss": 1}', "null", "5", '"step"', "", "\x00\x00"])
def test_a_line_that_a_kill_cut_short_is_dropped(file, broken):
    append_line(file, {"step": 4})
    with file.open("a") as opened:
        opened.write(broken)
    cut_after(file, 4)
    assert steps(file) == [4]
    append_line(file, {"step": 5})
    assert steps(file) == [4, 5]


def test_a_line_cut_inside_a_letter_is_dropped(file):
    append_line(file, {"step": 4})
    with file.open("ab") as opened:
        opened.write('{"step": 5, "note": "ร'.encode()[:-1])
    cut_after(file, 4)
    assert steps(file) == [4]


def test_no_file_is_no_trouble(file):
    cut_after(file, 4)
    assert not file.exists()


def test_nothing_is_left_beside_the_file(file):
    append_line(file, {"step": 1})
    cut_after(file, 1)
    assert [path.name for path in file.parent.iterdir()] == ["metrics.jsonl"]
