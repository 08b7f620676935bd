"""`dudi-kit evaluate` on a model folder: a tiny random model, one task that ships, a few rows of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dudi_kit.evaluate.scores import Scores, load_answers, load_scores
from dudi_kit.evaluate.store import Answers, Said
from dudi_kit.pipeline.folders import output_folder
from tests.small import call, tokenizer

WORDS = ["Kereta tiba", "Gol kedua", "Bandara baru", "Pertandingan", "Hotel penuh", "Wasit", "Pantai", "Tim menang"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    made = tokenizer()
    config = LlamaConfig(
        vocab_size=len(made), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=2048, initializer_range=0.4,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of `topic` in Indonesian and Thai."""
    monkeypatch.chdir(tmp_path)
    for language in ("id", "th"):
        folder = tmp_path / "home" / "sib200" / language
        folder.mkdir(parents=True)
        rows = [f"{i}\t{('travel', 'sports')[i % 2]}\t{text}\n" for i, text in enumerate(WORDS)]
        (folder / "test.tsv").write_text("index_id\tcategory\ttext\n" + "".join(rows), encoding="utf-8")
        (folder / "train.tsv").write_text("index_id\tcategory\ttext\n", encoding="utf-8")
    return tmp_path / "home"


def asked(target: Path, home: Path, output: str, *more: str) -> list[str]:
    chosen = ["--tasks", "topic", "--languages", "id,th", "--data-home", str(home), "--batch-size", "2"]
    return ["evaluate", str(target), *chosen, "-o", output, *more]


def scores_of(output: str) -> Scores:
    return load_scores(Path(output, "evaluation", "after.json"))


def test_scores_are_kept_and_shown(target: Path, home: Path) -> None:
    result = call(*asked(target, home, "out", "--limit", "6", "--scoring", "logprob"))
    assert result.exit_code == 0, result.output
    found = scores_of("out").tasks["topic"]
    assert {language: (row.rows, row.of_rows) for language, row in found.languages.items()} == {
        "id": (6, 8), "th": (6, 8)
    }  # fmt: skip
    assert found.about is not None
    assert found.about.scoring == "logprob"
    assert all(row.seconds and row.seconds > 0 for row in found.languages.values())
    assert re.search(r"topic +id +6 +8 +[\d.]+", result.stdout)
    kept = json.loads(Path("out/evaluation/target.json").read_text(encoding="utf-8"))
    assert kept["target"] == str(target)
    assert kept["evaluation"]["tasks"]["topic"]["limit"] == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "topics"], "--tasks: no task is called 'topics'. Did you mean 'topic'?"),
        (["--tasks", "mine.yaml"], "--tasks: no such file: mine.yaml"),
        (["--languages", "id,tha"], "--languages: no task is there in 'tha'. Did you mean 'th'?"),
        (["--languages", "id,id"], "--languages: 'id' is named twice"),
        (["--tasks", "qa", "--scoring", "logprob"], "--scoring logprob: task qa has no labels to choose among"),
        (["--data-home", "nowhere"], "no such folder: nowhere"),
        (["--frozen"], "is for a recipe, and this is none"),
        (["--training.seed=1"], "is for a recipe, and this is none"),
        (["--predictions", "x"], "one of them"),
    ],
)
def test_what_does_not_fit_a_folder_is_refused(target: Path, options: list[str], message: str) -> None:
    result = call("evaluate", target, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("option", ["--tasks=topic", "--limit=3", "--mode=base", "--data-home=x", "--dtype=bf16"])
def test_what_does_not_fit_a_recipe_is_refused(option: str) -> None:
    result = call("evaluate", "student.yaml", option)
    assert result.exit_code == 2
    assert "is for a model folder, and student.yaml is a recipe" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--predictions", "x", "--scoring=logprob"], "is not for answers that were given"),
        (["--predictions", "x", "--batch-size=2"], "is not for answers that were given"),
        (["--export-lm-eval", "x", "--dtype=bf16"], "is not for --export-lm-eval"),
        (["--lm-eval", "x"], "name a recipe or a model folder"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: list[str], message: str) -> None:
    result = call("evaluate", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("target", "folder"),
    [
        ("/x/run/final", "run-final"),
        ("/x/run/checkpoints/step-20", "run-step-20"),
        ("/x/Qwen2.5-0.5B", "Qwen2.5-0.5B"),
        ("/x/gemma.q4.gguf", "gemma.q4"),
    ],
)
def test_scores_of_a_model_have_a_folder_of_its_name(target: str, folder: str) -> None:
    assert output_folder(Path(target), None).path == Path("outputs", "evaluated", folder)


def test_a_folder_without_a_model_is_told(tmp_path: Path, target: Path) -> None:
    result = call("evaluate", tmp_path)
    assert result.exit_code == 1
    assert "is no model folder: it has no config.json" in result.stderr
    (tmp_path / "recipe.resolved.json").write_text("{}")
    assert "It is a run: name" in call("evaluate", tmp_path).stderr
    result = call("evaluate", target, "-o", tmp_path)
    assert result.exit_code == 1
    assert "is the directory of a run" in result.stderr


def test_a_model_without_a_chat_template_is_asked_to_complete(target: Path, home: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in target.iterdir():
        if file.name != "chat_template.jinja":
            (base / file.name).write_bytes(file.read_bytes())
    result = call(*asked(base, home, "out"))
    assert result.exit_code == 1
    assert "its tokenizer has no chat template" in result.stderr
    assert "--mode base" in result.stderr
    assert call(*asked(base, home, "out", "--mode", "base", "--shots", "0", "--limit", "2")).exit_code == 0
    first = load_answers(Path("out/evaluation/after.answers.jsonl"))[0]
    assert first.prompt.endswith("Jawaban:")


def test_a_language_without_data_is_said_once_and_the_others_are_scored(target: Path, home: Path) -> None:
    chosen = ["--tasks", "topic", "--languages", "id,vi,ta", "--data-home", str(home), "--limit", "2"]
    result = call("evaluate", target, *chosen, "-o", "out")
    assert result.exit_code == 0, result.output
    assert result.output.count("not scored: topic vi ta: the hub can't be reached") == 1
    missing = {(each.task, each.language) for each in scores_of("out").missing}
    assert missing == {("topic", "vi"), ("topic", "ta")}
    result = call("evaluate", target, "--tasks", "topic", "--languages", "vi", "--data-home", str(home))
    assert result.exit_code == 1
    assert "no rows at all: topic" in result.stderr


def test_an_empty_split_is_told(target: Path, home: Path) -> None:
    (home / "sib200" / "id" / "test.tsv").write_text("index_id\tcategory\ttext\n", encoding="utf-8")
    result = call("evaluate", target, "--tasks", "topic", "--languages", "id", "--data-home", home)
    assert result.exit_code == 1
    assert "sib200/id/test.tsv has no rows in id" in result.stderr


def test_a_model_that_says_nothing_has_no_score(target: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dudi_kit.data.encode.Encoder.decode", lambda self, ids: " ")
    result = call(*asked(target, home, "out"))
    assert result.exit_code == 0, result.output
    told = "not scored: topic id, topic th: all 8 answers are empty: a model that says nothing has no score"
    assert told in result.stdout
    assert scores_of("out").tasks["topic"].languages == {}
    assert scores_of("out").aggregates[0].overall.value is None


def test_stopped_in_the_middle_it_goes_on_by_item(target: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add, batches = Answers.add, []

    def stop(self: Answers, some: Iterable[Said]) -> None:
        batches.append(list(some))
        add(self, batches[-1])
        if len(batches) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Answers, "add", stop)
    result = call(*asked(target, home, "out"))
    assert result.exit_code == 130
    assert "the same command goes on from there" in " ".join(result.stderr.split())
    assert not Path("out/evaluation/after.json").exists()
    assert call(*asked(target, home, "out")).exit_code == 0
    assert len(batches) == 8, "2 languages × 8 rows in batches of 2: none was asked twice"
    assert call(*asked(target, home, "whole")).exit_code == 0
    assert load_answers(Path("out/evaluation/after.answers.jsonl")) == load_answers(
        Path("whole/evaluation/after.answers.jsonl")
    )


def test_killed_in_the_middle_it_goes_on_by_item(target: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", SLOW, *asked(target, home, "out")]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    kept = Path("out/evaluation/answers/after/topic.id.jsonl")
    while not kept.exists() or kept.read_text(encoding="utf-8").count("\n") < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = kept.read_text(encoding="utf-8").count("\n")
    added: list[Any] = []
    add = Answers.add
    monkeypatch.setattr(Answers, "add", lambda self, some: (added.extend(some), add(self, added[-2:])))
    assert call(*asked(target, home, "out")).exit_code == 0
    assert len(added) == 16 - before
    assert {row.rows for row in scores_of("out").tasks["topic"].languages.values()} == {8}


SLOW = """
import sys, time
from dudi_kit.evaluate.store import Answers
add = Answers.add
def slowly(self, some):
    add(self, some)
    time.sleep(1)
Answers.add = slowly
from dudi_kit.cli import app
app(sys.argv[1:])
"""
"""The command line, with time after each batch to be killed in."""
