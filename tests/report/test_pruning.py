"""What people are told of a student that is cut from a bigger model."""

import json
from pathlib import Path
from typing import Any

from dudi_kit.plan.schema import PlannedPruning, PrunedLanguage
from dudi_kit.report.pruning import kept, pruned_rows
from dudi_kit.report.write import write_report

PRUNING = PlannedPruning(
    model="owner/big",
    layers=[0, 3, 5],
    layers_before=6,
    rows_before=262_144,
    rows_after=51_700,
    common_pieces=830,
    parameters_before=268_000_000,
    parameters_after=70_000_000,
    embeddings_before=167_772_160,
    embeddings_after=33_088_000,
    piece_parameters=640,
    languages={
        "th": PrunedLanguage(
            texts=1_000, same=990, tokens_before=10_000, tokens_after=10_050, other_texts=200, other_same=150,
            other_tokens_before=2_000, other_tokens_after=2_050, pieces=20_000, own_pieces=12_500,
        ),
        "id": PrunedLanguage(
            texts=10, same=10, tokens_before=100, tokens_after=100, other_texts=0, other_same=0,
            other_tokens_before=0, other_tokens_after=0, pieces=900, own_pieces=0,
        ),
    },
)  # fmt: skip


def test_what_stays_is_told_in_one_line() -> None:
    assert kept(PRUNING) == (
        "3 of 6 layers (0 3 5) and 51,700 of 262,144 pieces: 70 M of 268 M parameters, of them in embeddings "
        "33.1 M of 168 M"
    )
    layers_alone = PRUNING.model_copy(update={"languages": {}})
    assert "(0 3 5) and all pieces:" in kept(layers_alone)
    pieces_alone = PRUNING.model_copy(update={"layers": list(range(6))})
    assert kept(pieces_alone).startswith("all 6 layers and 51,700 of")


def test_each_language_has_its_shares_and_what_it_costs_alone() -> None:
    thai, indonesian = pruned_rows(PRUNING)
    assert thai.cells == ("1,000", "99.0%", "200", "75.0%", "+2.5%", "20,000", "12,500", "8 M")
    assert indonesian.cells == ("10", "100.0%", "0", "–", "–", "900", "0", "0")


def page_with(run_dir: Path, pruning: Any) -> str:
    plan = json.loads((run_dir / "plan.json").read_text())
    (run_dir / "plan.json").write_text(json.dumps({**plan, "pruning": pruning}))
    return write_report(run_dir).read_text("utf-8")


def test_the_report_has_a_section_where_the_student_was_cut(run_dir: Path) -> None:
    page = page_with(run_dir, PRUNING.model_dump())
    for text in ('id="pruning"', "3 of 6 layers (0 3 5)", "th Thai", "12,500", "830 bytes"):
        assert text in page
    assert 'id="pruning"' not in page_with(run_dir, None)
    assert 'id="pruning"' not in page_with(run_dir, {"layers": "<script>"})
