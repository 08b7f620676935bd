"""Our tasks in lm-eval: loaded and run offline, with the figures that both sides have in common."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dudi_kit.evaluate.harness_scores import load_harness
from dudi_kit.evaluate.scores import load_answers
from dudi_kit.plan.chain import build_chain
from dudi_kit.plan.layout import write_json
from dudi_kit.recipe.load import load_recipe
from tests.small import call, tokenizer, write_chain

pytest.importorskip("lm_eval", reason="lm-eval is an optional extra")

WORDS = ["Kereta tiba", "Gol kedua", "Bandara baru", "Pertandingan", "Hotel penuh", "Wasit", "Pantai", "Tim menang"]
LABELS = ["travel", "sports", "politics", "health", "entertainment", "geography", "science/technology"]
"""All of them, so that whatever a random model prefers is right somewhere."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and rows of `topic` in Indonesian."""
    monkeypatch.chdir(tmp_path)
    made = tokenizer()
    config = LlamaConfig(
        vocab_size=len(made), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=2048, initializer_range=0.4,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained("model")
    made.save_pretrained("model")
    folder = tmp_path / "home" / "sib200" / "id"
    folder.mkdir(parents=True)
    rows = [f"{i}\t{label}\t{WORDS[i % 8]} {i}\n" for i, label in enumerate(LABELS * 2)]
    (folder / "test.tsv").write_text("index_id\tcategory\ttext\n" + "".join(rows), encoding="utf-8")
    (folder / "train.tsv").write_text("index_id\tcategory\ttext\n", encoding="utf-8")
    return tmp_path


def run(*options: str) -> list[dict[str, object]]:
    chosen = ["--tasks", "topic", "--languages", "id", "--data-home", "home", "--shots", "0", *options]
    assert call("evaluate", "model", *chosen, "-o", "ours").exit_code == 0
    result = call("evaluate", "--export-lm-eval", "exported", *chosen)
    assert result.exit_code == 0, result.output
    assert "dudi_topic_id" in result.stdout
    mode = ["--mode", options[options.index("--mode") + 1]] if "--mode" in options else []
    asked = ["--lm-eval", "dudi_topic_id", "--lm-eval-tasks", "exported", *mode, "-o", "theirs"]
    result = call("evaluate", "model", *asked)
    assert result.exit_code == 0, result.output
    found = json.loads(Path("theirs/evaluation/lm_eval.json").read_text(encoding="utf-8"))
    assert found["version"]
    assert found["mode"] == (mode or ["", "instruct"])[1]
    scores: list[dict[str, object]] = found["scores"]
    return scores


@pytest.mark.parametrize("mode", ["instruct", "base"])
def test_the_likeliest_label_is_the_same(place: Path, mode: str) -> None:
    (score,) = run("--scoring", "logprob", "--mode", mode)
    ours = load_answers(Path("ours/evaluation/after.answers.jsonl"))
    right = [row.value == 100 for row in ours]
    assert any(right), "or the test could not fail"
    assert not all(right)
    assert (score["metric"], score["rows"]) == ("acc,none", 14)
    assert score["value"] == pytest.approx(sum(right) / 14)


def test_written_answers_are_read_behind_their_tag(place: Path) -> None:
    (score,) = run()
    assert (score["metric"], score["rows"]) == ("exact_match,answer", 14)
    (settings,) = Path("exported").glob("*.yaml")
    pattern = settings.read_text(encoding="utf-8")
    assert "Jawaban:" in pattern
    assert "perjalanan" in pattern


def test_a_recipes_student_is_asked_and_reported(place: Path) -> None:
    """A recipe, as it is after training: lm-eval asks its final model, and the report shows what it found."""
    file = write_chain(place / "recipes")
    main = build_chain(load_recipe(file).recipe, file, place / "out")
    for folder in (main.run.final, main.run.tokenizer):
        shutil.copytree("model", folder)
    write_json(main.run.lock, {"hash": main.lock})
    chosen = ["--tasks", "topic", "--languages", "id", "--data-home", "home", "--shots", "0", "--scoring", "logprob"]
    assert call("evaluate", "--export-lm-eval", "exported", *chosen).exit_code == 0
    asked = ["--lm-eval", "dudi_topic_id", "--lm-eval-tasks", "exported", "--limit", "6", "-o", "out"]
    result = call("evaluate", file, *asked)
    assert result.exit_code == 0, result.output
    found = load_harness(main.run.evaluation / "lm_eval.json")
    assert (found.model, found.limit, found.mode) == (str(main.run.final), 6, "instruct")
    assert [(score.task, score.metric, score.rows) for score in found.scores] == [("dudi_topic_id", "acc,none", 6)]
    result = call("report", file, "-o", "out")
    assert result.exit_code == 0, result.output
    page = main.run.report.read_text(encoding="utf-8")
    assert f"<td>dudi_topic_id</td><td>acc,none</td><td>6</td><td>{found.scores[0].value:.4f}</td>" in page
    changed = call("evaluate", file, *asked, "--training.seed=9")
    assert changed.exit_code == 1
    assert "trained with other settings" in " ".join(changed.stderr.split())


def test_what_does_not_fit_is_refused(place: Path) -> None:
    result = call("evaluate", "model", "--lm-eval", "x", "--tasks", "topic")
    assert result.exit_code == 2
    assert "is not for --lm-eval" in result.stderr
    result = call("evaluate", "model", "--lm-eval-tasks", "x")
    assert result.exit_code == 2
    assert "is for --lm-eval" in result.stderr
