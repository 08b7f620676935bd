"""Measured transfer in the report: both ends of the training, by language and source, and nothing of old runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from dudi_kit.report.plots import transfer_curves
from dudi_kit.report.transfer import Ends, MassRow, coverage, label_mass, transfer_tables
from dudi_kit.report.write import write_report


def means(values: dict[str, float]) -> dict[str, Any]:
    return {"all": sum(values.values()) / len(values), "by_language": values}


def line(step: int, overlap: dict[str, float], **by_source: dict[str, float]) -> dict[str, Any]:
    sources = {source: means(values) for source, values in by_source.items()}
    metric = means(overlap) | {"by_source": sources or {"parallel": means(overlap)}}
    kl = means({code: 2 - 2 * value for code, value in overlap.items()}) | {"by_source": {}}
    metrics = {"top10_overlap": metric, "reverse_kl": kl}
    return {
        "step": step,
        "loss": 1.0,
        "signals": {"on_policy": {"loss": 1.0, "metrics": metrics}, "sft": {"loss": 1.0}},
    }


def test_the_ends_are_the_means_of_the_first_and_the_last_tenth() -> None:
    steps = [line(step, {"th": step / 100}) for step in range(1, 21)]
    (table,) = transfer_tables(steps)
    assert table.signal == "on_policy"
    assert [(row.language, row.source) for row in table.rows] == [("th", "all"), ("all", "all")]
    assert table.rows[0].overlap == Ends(pytest.approx(0.015), pytest.approx(0.195))
    assert table.rows[0].kl == Ends(pytest.approx(1.97), pytest.approx(1.61))


def test_a_language_that_comes_late_starts_where_it_first_stands() -> None:
    steps = [line(1, {"id": 0.2}), line(2, {"id": 0.3, "th": 0.5}), line(3, {"id": 0.4})]
    by_language = {row.language: row.overlap for row in transfer_tables(steps)[0].rows}
    assert by_language["th"] == Ends(0.5, 0.5)
    assert by_language["id"] == Ends(0.2, 0.4)


def test_two_sources_have_rows_of_their_own_below_each_language() -> None:
    steps = [line(1, {"id": 0.5, "th": 0.5}, parallel={"id": 0.6, "th": 0.5}, none={"id": 0.4})]
    (table,) = transfer_tables(steps)
    rows = [(row.language, row.source, row.overlap.first if row.overlap else None) for row in table.rows]
    assert rows == [
        ("id", "all", 0.5), ("id", "parallel", 0.6), ("id", "none", 0.4), ("th", "all", 0.5), ("th", "parallel", 0.5),
        ("all", "all", 0.5), ("all", "parallel", 0.55), ("all", "none", 0.4),
    ]  # fmt: skip


def test_a_run_of_before_it_was_measured_has_no_table(metrics_line, run_dir: Path) -> None:
    steps = [metrics_line(step) for step in range(1, 5)]
    assert transfer_tables(steps) == []
    assert transfer_curves(steps, "on_policy") is None
    assert "Measured transfer" not in write_report(run_dir).read_text(encoding="utf-8")


def test_the_page_shows_the_table_and_the_curves(run_dir: Path) -> None:
    lines = [json.dumps(line(step, {"th": 0.25, "my": 0.5})) for step in range(1, 4)]
    (run_dir / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    page = write_report(run_dir).read_text(encoding="utf-8")
    section = page[page.index('<section id="transfer">') : page.index('<section id="ledger">')]
    assert "on policy · demonstration: parallel" in section
    assert "<td>my Burmese</td>" in section
    assert "<td>0.250</td><td>0.250</td>" in section
    assert "<svg" in section


# Label words


def mass_line(step: int, moved: dict[str, float], at_home: dict[str, float]) -> dict[str, Any]:
    metrics = {"label_mass_moved": means(moved), "label_mass_at_home": means(at_home)}
    return {"step": step, "loss": 1.0, "signals": {"off_policy": {"loss": 1.0, "metrics": metrics}}}


def test_the_moved_mass_by_language_is_the_mean_of_all_lines() -> None:
    steps = [mass_line(1, {"th": 0.2, "id": 0.5}, {"th": 0.7, "id": 0.5}), mass_line(2, {"th": 0.4}, {"th": 0.5})]
    ((signal, rows),) = label_mass(steps)
    assert signal == "off_policy"
    by_language = {row.language: row for row in rows}
    assert by_language["th"] == MassRow("th", pytest.approx(0.6), pytest.approx(0.3))
    assert by_language["th"].elsewhere == pytest.approx(0.1)
    assert by_language["id"].elsewhere == 0
    assert list(by_language) == ["id", "th", "all"]


def test_the_page_shows_label_words_only_where_rows_declared_them(run_dir: Path) -> None:
    assert 'id="labels"' not in write_report(run_dir).read_text(encoding="utf-8")
    lines = [json.dumps(mass_line(step, {"ta": 0.25}, {"ta": 0.7})) for step in range(1, 4)]
    (run_dir / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert "<td>ta Tamil</td><td>0.700</td><td>0.250</td><td>0.050</td>" in page


# Coverage of two vocabularies


def test_the_page_shows_coverage_by_language_only_where_two_vocabularies_met(run_dir: Path) -> None:
    assert 'id="coverage"' not in write_report(run_dir).read_text(encoding="utf-8")
    metrics = {"coverage_full": means({"th": 0.25, "vi": 0.75}), "coverage_span": means({"th": 0.5, "vi": 0.25})}
    steps = [{"step": 1, "loss": 1.0, "signals": {"on_policy": {"loss": 1.0, "metrics": metrics}, "sft": {"loss": 1}}}]
    ((signal, rows),) = coverage(steps)
    assert signal == "on_policy"
    assert [(row.language, row.none) for row in rows] == [("th", 0.25), ("vi", 0), ("all", 0.125)]
    (run_dir / "metrics.jsonl").write_text(json.dumps(steps[0]), encoding="utf-8")
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert "<td>th Thai</td><td>0.250</td><td>0.500</td><td>0.250</td>" in page
