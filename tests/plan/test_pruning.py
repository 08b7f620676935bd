"""Students cut from a bigger model, as far as that is decided before a weight is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import ModelError
from dudi_kit.models.loading import load_model
from dudi_kit.plan.build import build_plan
from dudi_kit.plan.chain import Stage, build_chain
from dudi_kit.plan.layout import write_text
from dudi_kit.plan.pruning import read_pruning
from dudi_kit.plan.schema import Plan
from dudi_kit.recipe.load import load_recipe
from dudi_kit.recipe.publish import resolved_json
from dudi_kit.train.cutting import cut_student
from tests.small import ROWS, tokenizer, write_chain, write_rows

LAYERS = 6
WORDS = "mentari rembulan bintang samudra gunung lembah sungai hutan padang gurun"
MADE = tokenizer([text for row in ROWS for text in row.values()] + [WORDS] * 4)
"""It knows words that no row has."""

PRUNED = {"init": "prune", "model": "./whole", "layers": 3, "cold_start": None}
OTHER = [{"prompt": f"Apakah {word}?", "response": f"Itu {word}.", "language": "id"} for word in WORDS.split()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of six layers with more rows than its tokenizer has pieces."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "whole"
    config = LlamaConfig(
        vocab_size=len(MADE) + 7, hidden_size=16, intermediate_size=32, num_hidden_layers=LAYERS,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    MADE.save_pretrained(folder)
    return folder


def recipe(folder: Path, whole: Path, **changes: Any) -> Path:
    file = write_chain(folder, student=dict(PRUNED), teacher={"model": "./whole", "dtype": "fp32"}, **changes)
    write_rows(folder / "other.jsonl", OTHER)
    (folder / "whole").symlink_to(whole)
    return file


def planned(file: Path) -> tuple[Plan, Stage]:
    main = build_chain(load_recipe(file).recipe, file, file.parent / "out")
    for stage in main.in_order():
        plan = build_plan(stage, processes=1, ledger=Ledger())
    return plan, main


DATASET = {"path": "other.jsonl", "language": {"column": "language"}}


def test_a_pruned_student_reads_its_rows_as_its_own_teacher_does(tmp_path: Path, whole: Path) -> None:
    plan, stage = planned(recipe(tmp_path, whole, data__held_out={"other": DATASET}))
    pruning = plan.pruning
    assert pruning is not None
    assert (pruning.layers, pruning.layers_before) == ([0, 3, 5], LAYERS)
    assert (pruning.rows_before, pruning.parameters_after) == (len(MADE) + 7, plan.parameters)
    assert pruning.rows_after == len(load_tokenizer(str(stage.run.tokenizer))) < len(MADE)
    assert pruning.embeddings_after == 16 * pruning.rows_after
    assert pruning.parameters_before - plan.parameters == 3 * (4 * 16 * 16 + 3 * 16 * 32 + 2 * 16) + 16 * (
        pruning.rows_before - pruning.rows_after
    )
    for code in ("en", "id", "th"):
        row = pruning.languages[code]
        assert (row.texts, row.same, row.tokens_before) == (8, 8, row.tokens_after)
        assert 0 < row.own_pieces < row.pieces
    others = pruning.languages["id"]
    assert (others.other_texts, others.other_same < 20) == (20, True)
    assert others.other_tokens_after > others.other_tokens_before
    assert plan.vocabulary is not None
    assert plan.vocabulary.mapping == "remap"
    assert {shares.full for shares in plan.vocabulary.coverage.values()} == {1.0}
    assert plan.start is not None
    assert plan.start.path == str(stage.run.pruned)
    assert plan.disk.pruned_bytes == plan.disk.final_bytes


def test_held_out_rows_choose_no_piece_and_extra_rows_do(tmp_path: Path, whole: Path) -> None:
    def pieces(folder: str, **changes: Any) -> list[int] | None:
        _, stage = planned(recipe(tmp_path / folder, whole, **changes))
        return read_pruning(stage.run).rows

    bare = pieces("bare")
    assert pieces("held-out", data__held_out={"other": DATASET}) == bare
    with_extra = pieces("extra", student__vocabulary={"extra": {"other": DATASET}})
    assert bare is not None
    assert with_extra is not None
    assert set(with_extra) > set(bare)


def test_extra_texts_are_segmented_as_before(tmp_path: Path, whole: Path) -> None:
    held_out = {"other": DATASET}
    plan, _ = planned(
        recipe(tmp_path, whole, student__vocabulary={"extra": {"other": DATASET}}, data__held_out=held_out)
    )
    assert plan.pruning is not None
    row = plan.pruning.languages["id"]
    assert (row.texts, row.same, row.other_texts, row.other_same) == (28, 28, 20, 20)


def test_rare_pieces_go_and_the_texts_that_had_them_are_counted(tmp_path: Path, whole: Path) -> None:
    plan, _ = planned(recipe(tmp_path, whole, student__vocabulary={"min_count": 5}))
    assert plan.pruning is not None
    assert any(row.same < row.texts and row.tokens_after > row.tokens_before for row in plan.pruning.languages.values())


def test_layers_alone_leave_the_vocabulary_shared(tmp_path: Path, whole: Path) -> None:
    plan, _ = planned(recipe(tmp_path, whole, student__vocabulary="all"))
    assert plan.pruning is not None
    assert plan.pruning.languages == {}
    assert plan.pruning.rows_before == plan.pruning.rows_after
    assert plan.vocabulary is not None
    assert plan.vocabulary.mapping == "shared"


def test_a_cold_start_is_cut_and_what_starts_from_it_tells_how(tmp_path: Path, whole: Path) -> None:
    plan, stage = planned(recipe(tmp_path, whole, student__cold_start={"steps": 1}))
    assert stage.start is not None
    assert plan.start is not None
    assert plan.start.path == str(stage.start.run.final)
    assert read_pruning(stage.start.run).planned == plan.pruning
    assert not stage.run.pruning.exists()
    assert plan.disk.pruned_bytes == 0


def test_the_lock_knows_the_extra_texts_by_their_content(tmp_path: Path, whole: Path) -> None:
    file = recipe(tmp_path, whole, student__vocabulary={"extra": {"other": DATASET}})
    before = build_chain(load_recipe(file).recipe, file, tmp_path).lock
    write_rows(tmp_path / "other.jsonl", OTHER[:-1])
    assert build_chain(load_recipe(file).recipe, file, tmp_path).lock != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"student__layers": 7}, "7 layers are to stay, and the model has 6"),
        ({"student__layers": [0, 6]}, "no layer 6: the model has 6, numbered 0 to 5"),
    ],
)
def test_layers_that_are_not_there_are_refused(tmp_path: Path, whole: Path, change: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        planned(recipe(tmp_path, whole, **change))


def test_a_tokenizer_that_cannot_be_trimmed_is_refused(tmp_path: Path, whole: Path) -> None:
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"?": 0, "a": 1}, unk_token="?")), eos_token="?", unk_token="?"
    )
    words.save_pretrained(tmp_path / "words")
    file = recipe(tmp_path, whole, student__tokenizer="./words", student__chat_template="plain")
    with pytest.raises(ModelError, match="it is a WordLevel tokenizer, and only BPE and Unigram ones can"):
        planned(file)


def test_the_weights_are_cut_once_and_anew_where_the_cut_differs(tmp_path: Path, whole: Path) -> None:
    plan, stage = planned(recipe(tmp_path, whole, student__layers="all"))
    write_text(stage.run.resolved, resolved_json(stage.recipe))
    cut_student(stage.run, stage.recipe, plan)
    file = stage.run.pruned / "model.safetensors"
    made = file.stat().st_ino
    cut_student(stage.run, stage.recipe, plan)
    assert file.stat().st_ino == made

    before, after = (load_model(str(path), who="x", dtype="fp32") for path in (whole, stage.run.pruned))
    rows = torch.tensor(read_pruning(stage.run).rows)
    ids = torch.arange(30)[None]
    with torch.no_grad():
        assert torch.equal(after(ids).logits, before(rows[ids]).logits[..., rows])

    kept = json.loads(stage.run.pruning.read_text())
    stage.run.pruning.write_text(json.dumps({**kept, "layers": [0, 1]}))
    cut_student(stage.run, stage.recipe, plan)
    assert load_model(str(stage.run.pruned), who="x", dtype="fp32").config.num_hidden_layers == 2
