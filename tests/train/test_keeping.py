"""Frozen models are asked once, and what is kept teaches what the live model would."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed import ReduceOp

from dudi_kit.cli import app
from dudi_kit.errors import Exit, RunDirectoryError
from dudi_kit.models.cache.shards import Shard
from dudi_kit.models.cache.store import Store
from dudi_kit.models.head_form import open_head
from dudi_kit.plan.caching import open_store
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import PlannedStore, read_plan
from dudi_kit.recipe.schema.cache import HiddenCache, TopKCache
from dudi_kit.train import keeping as keeping_room
from dudi_kit.train.forms import save_form
from dudi_kit.train.keeping import Keeping, ReferenceAnswers, TeacherAnswers
from dudi_kit.train.step import Models, Objective, Padding
from dudi_kit.verbalizer.vocabulary.alignment import Alignment
from dudi_kit.verbalizer.vocabulary.reading import Reading
from tests.small import ROWS as TEXTS
from tests.train.bench import ENVIRONMENT, Bench, metrics, weights
from tests.train.bench import ROWS as ROWS_OF_A_BENCH
from tests.train.test_facing import Coarse
from tests.train.test_label_words import LABELS
from tests.train.test_objective_gradient import (
    ITEMS,
    PAD,
    PIECES,
    TEACHER_ROWS,
    WHOLE,
    assert_same,
    gradients,
    models,
    pair,
    settings,
)

HIDDEN = HiddenCache(type="hidden")
TOP_K = TopKCache(type="top_k", k=20, rank=40)
CPU = torch.device("cpu")


class Counted(nn.Module):
    """A model, and how many rows it has read."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.module, self.rows = model, 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: Any, __: Any, inputs: dict[str, Any]) -> None:
        self.rows += len(inputs["input_ids"])


def keeping(folder: Path, teacher: Any, rows: Any, cache: Any, *, reference: bool = True) -> Keeping:
    answers = TeacherAnswers(Store(folder / "teacher", {"a": 1}), cache, PAD, CPU)
    answers.begin(teacher, rows)
    kept = ReferenceAnswers(Store(folder / "reference", {"a": 1})) if reference else None
    return Keeping(answers, kept, rows, range(len(rows)), leaves=False)


def learned(asked: Models, kept: Keeping | None, *, labels: bool = False) -> Any:
    """Loss and gradient of all signals over all rows."""
    objective = Objective(settings(WHOLE), padding=Padding(PAD, PAD), pieces=PIECES, with_labels=labels, keeping=kept)
    pairs = [pair(i, item) for i, item in enumerate(ITEMS)]
    pairs = [p._replace(row=replace(p.row, labels=LABELS)) for p in pairs] if labels else pairs
    loss = objective(asked, pairs, objective.counts(pairs)).loss
    return loss.detach(), gradients(loss, asked.student)


ROWS = [pair(i, item).row for i, item in enumerate(ITEMS)]


def test_hidden_states_and_kept_reference_teach_as_the_live_models_do(tmp_path: Path) -> None:
    kept = keeping(tmp_path, models().teacher, ROWS, HIDDEN)
    expected = learned(models(), None)
    assert_same(learned(models(), kept), expected)
    kept.write()
    assert_same(learned(models(), keeping(tmp_path, models().teacher, ROWS, HIDDEN)), expected)


def test_label_words_are_moved_in_what_was_kept(tmp_path: Path) -> None:
    kept = keeping(tmp_path, models().teacher, ROWS, HIDDEN)
    assert_same(learned(models(), kept, labels=True), learned(models(), None, labels=True))


def test_the_second_time_nobody_is_asked_about_the_corpus(tmp_path: Path) -> None:
    asked = models()
    teacher, reference = Counted(asked.teacher), Counted(asked.reference)
    kept = keeping(tmp_path, asked.teacher, ROWS, HIDDEN)
    counts = []
    for _ in range(2):
        before = teacher.rows, reference.rows
        learned(asked, kept)
        counts.append((teacher.rows - before[0], reference.rows - before[1]))
    n = len(ROWS)
    assert counts == [(2 * n, 2 * n), (n, n)]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_head_that_is_shared_out_is_gathered_by_every_process(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the first would wait for the others, which wait for it elsewhere."""
    teacher, gathered = models().teacher, list[int]()
    answers = TeacherAnswers(Store(tmp_path, {"a": 1}), HIDDEN, PAD, CPU, together=True)

    @contextmanager
    def counted(*arguments: Any) -> Iterator[Any]:
        gathered.append(rank)
        with open_head(*arguments) as head:
            yield head

    def barrier() -> None:
        if rank:
            save_form(tmp_path, HIDDEN, teacher, list)  # what the first process has done meanwhile

    monkeypatch.setattr(keeping_room, "open_head", counted)
    group = {"is_initialized": lambda: True, "get_rank": lambda: rank, "barrier": barrier, "ReduceOp": ReduceOp}
    alone = SimpleNamespace(**group, all_reduce=lambda *_: None)
    monkeypatch.setattr(keeping_room, "dist", alone)
    answers.begin(teacher, ROWS)
    assert gathered == [rank]
    assert answers.form is not None


@pytest.mark.parametrize("cache", [HIDDEN, TOP_K], ids=["hidden", "top k"])
def test_a_response_of_which_the_teacher_reads_nothing(cache: Any, tmp_path: Path) -> None:
    """One that was cut within its first letter has no token of another tokenizer."""
    teacher = models().teacher
    kept = keeping(tmp_path, teacher, ROWS, cache).teacher
    assert kept is not None
    nothing = replace(ROWS[0], reading=Reading([], Alignment(np.zeros((0, 2), int), np.zeros((0, 4), int), 1)))
    kept.ask(teacher, [nothing])
    assert kept.knows(nothing)
    assert kept.predicted([nothing]).logits(slice(0, 0)).shape == (0, TEACHER_ROWS)


def test_weights_that_were_trained_anew_have_answers_of_their_own(tmp_path: Path) -> None:
    """The lock is the same; what was trained is not, by rounding at least."""
    run, final = RunDir(tmp_path / "run"), tmp_path / "start" / "final"
    planned = PlannedStore(
        who="reference", subject={"weights": "lock"}, trained=str(final), folder="", rows=1, answered=0, bytes=0
    )
    final.mkdir(parents=True)
    folders = []
    for content in (b"first", b"again, longer", b"first"):
        (final / "model.safetensors").write_bytes(content)
        folders.append(open_store(run, planned).folder)
    assert folders[0] == folders[2] != folders[1]


def test_kept_pieces_teach_within_the_error_that_is_stated(tmp_path: Path) -> None:
    kept = keeping(tmp_path, models().teacher, ROWS, TOP_K)
    (loss, gradient), (expected, live) = learned(models(), kept), learned(models(), None)
    assert (loss - expected).abs() < 0.01 * expected
    away = torch.cat([(gradient[name] - live[name]).flatten() for name in live]).norm()
    assert away < 0.02 * torch.cat([value.flatten() for value in live.values()]).norm()


@pytest.mark.parametrize("cache", [HIDDEN, TOP_K], ids=lambda cache: cache.type)
@pytest.mark.parametrize(("chunk", "strip"), [(3, 1), (10, 2), (64, 1)])
def test_chunks_and_strips_of_any_size_change_nothing_of_what_is_kept(
    cache: Any, chunk: int, strip: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = keeping(tmp_path, models().teacher, ROWS, cache)
    loss, gradient = learned(models(), kept)
    monkeypatch.setattr("dudi_kit.signals.chunks.CHUNK_BYTES", chunk * PIECES * 8)
    monkeypatch.setattr("dudi_kit.signals.chunks.STRIP_ELEMENTS", strip * PIECES)
    found, again = learned(models(), kept)
    torch.testing.assert_close(found, loss, rtol=1e-6, atol=0)
    for name, expected in gradient.items():
        torch.testing.assert_close(again[name], expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_what_was_sketched_is_told_alike_from_any_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = keeping(tmp_path, models().teacher, ROWS, TOP_K).teacher
    assert answers is not None
    answers.ask(models().teacher, ROWS)
    whole = answers.predicted(ROWS).logits(slice(0, 9)).clone()
    monkeypatch.setattr("dudi_kit.signals.chunks.STRIP_ELEMENTS", 2 * TEACHER_ROWS)
    told = answers.predicted(ROWS)
    for place in (slice(3, 5), slice(0, 9), np.array([8, 0, 3]), slice(7, 9)):  # the memory grows once, and is reused
        torch.testing.assert_close(told.logits(place), whole[place])


@pytest.mark.parametrize("cache", [HIDDEN, TOP_K], ids=lambda cache: cache.type)
def test_between_two_vocabularies_with_spans(cache: Any, tmp_path: Path) -> None:
    bench = Coarse()
    signals = {"off_policy": {"weight": 1, "temperature": 1.5}}
    loss, gradient = bench.gradient("align", signals)
    joint = bench.decided("align")
    rows = [bench.row(i, row, joint) for i, row in enumerate(TEXTS)]
    bench.keeping = keeping(tmp_path, bench.models.teacher, rows, cache, reference=False)
    for _ in range(2):
        found, kept = bench.gradient("align", signals)
        close = 1e-8 if cache is HIDDEN else 0.02
        torch.testing.assert_close(found, loss, rtol=close, atol=0)
        away = torch.cat([(a - b).flatten() for a, b in zip(kept, gradient, strict=True)]).norm()
        assert away <= 2 * close * torch.cat([g.flatten() for g in gradient]).norm()
        bench.models = bench.models._replace(teacher=None)  # the second time it is gone


# Runs


OFF_POLICY = {
    "signals__on_policy__weight": "0",
    "training__checkpoint_every": "1",
    "training__steps": "5",
    "rollouts__temperature": "0",
}
KEPT = OFF_POLICY | {"teacher__cache": "{type: hidden}"}
SHARED_OUT = OFF_POLICY | {"teacher__cache": "{type: top_k, k: 64, rank: 40}", "processes": 2}


class Kept:
    """A live run, one that keeps answers and is killed in its first epoch, and one of two processes."""

    def __init__(self, bench: Bench, runs: Any) -> None:
        self.bench = bench
        live = runs.submit(lambda: bench.train("kept-live", **OFF_POLICY))
        killed = runs.submit(self._killed)
        two = runs.submit(lambda: bench.train("kept-two", **SHARED_OUT))
        self.live, self.killed, self.two = live.result(), killed.result(), two.result()

    def _killed(self) -> RunDir:
        run = self.bench.killed("kept-killed", "step-1", **KEPT)
        self.bench.start(run, resume=True).finish()
        return run


@pytest.fixture(scope="module")
def kept(bench: Bench, runs: Any) -> Kept:
    return Kept(bench, runs)


def stored(run: RunDir) -> Store:
    planned = read_plan(run).cache
    assert planned is not None
    assert planned.teacher is not None
    return Store(Path(planned.teacher.folder), planned.teacher.subject)


def test_a_run_that_was_killed_while_it_kept_answers_learns_what_a_live_one_does(kept: Kept) -> None:
    mine, live = weights(kept.killed), weights(kept.live)
    for name, expected in live.items():
        torch.testing.assert_close(mine[name], expected, rtol=1e-4, atol=1e-6)
    assert len(stored(kept.killed)) == ROWS_OF_A_BENCH


def test_two_processes_ask_for_each_row_once_and_learn_within_the_error(kept: Kept) -> None:
    store = stored(kept.two)
    assert len(list(store.folder.glob("*.rank-1.shard"))) > 0
    assert len(store) == ROWS_OF_A_BENCH  # of all shards together: no row is in two of them
    for mine, live in zip(metrics(kept.two), metrics(kept.live), strict=True):
        assert mine["signals"]["off_policy"]["loss"] == pytest.approx(live["signals"]["off_policy"]["loss"], rel=0.02)
        assert mine["signals"]["sequence"]["loss"] == pytest.approx(live["signals"]["sequence"]["loss"], rel=0.02)


def test_the_plan_of_another_run_finds_the_answers_and_loads_no_teacher(kept: Kept) -> None:
    planned = read_plan(kept.bench.plan("kept-again", **KEPT))
    assert planned.cache is not None
    assert planned.cache.needs_no_teacher
    assert planned.disk.cache_bytes == 0
    with_teacher = read_plan(kept.live)
    assert planned.memory.chosen.phases["backward"].get("teacher", 0) == 0
    assert with_teacher.memory.chosen.phases["backward"]["teacher"] > 0


def test_the_answers_of_the_next_step_are_announced(bench: Bench) -> None:
    run = bench.plan("kept-ahead", **KEPT)
    words = [sys.executable, "-m", "tests.train.ahead", str(run.path)]
    ended = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    steps = json.loads(ended.stdout.splitlines()[-1])
    assert [len(step["read"]) for step in steps] == [8] * 5
    for this, following in pairwise(steps):
        assert set(this["expected"]) == set(following["read"])
    assert steps[-1]["expected"] == []


def test_nothing_of_another_template_tokenizer_dtype_or_weights_is_found(kept: Kept) -> None:
    bench = kept.bench
    other = bench.folder / "another"
    shutil.copytree(bench.folder / "teacher", other)
    weights_file = other / "model.safetensors"
    content = bytearray(weights_file.read_bytes())
    content[len(content) // 2] ^= 1
    weights_file.write_bytes(bytes(content))
    changes: list[dict[str, str]] = [
        {"teacher__model": "./another"},
        {"teacher__chat_template": "plain", "student__chat_template": "plain"},
        {"teacher__dtype": "bf16"},
        {"teacher__model": "./foreigner", "verbalizer__vocabulary__mapping": "align"},
        {"verbalizer__demonstration__terms": "[off_policy]"},
    ]
    for change in changes:
        planned = read_plan(bench.plan("kept-stale", **KEPT | change)).cache
        assert planned is not None
        assert planned.teacher is not None
        assert planned.teacher.answered == 0, change
    heated = read_plan(bench.plan("kept-hot", **KEPT, signals__off_policy__temperature="2.0")).cache
    assert heated is not None
    assert heated.needs_no_teacher  # whole distributions are kept: the temperature is applied when they are read


def test_a_damaged_answer_stops_the_run_that_needs_it_by_name(kept: Kept, tmp_path: Path) -> None:
    store = stored(kept.killed)
    folder = shutil.copytree(store.folder, tmp_path / store.folder.name)
    shard = next(folder.glob("*.shard"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    subject = json.loads((folder / "subject.json").read_text(encoding="utf-8"))
    damaged = Store(folder, subject)
    with pytest.raises(RunDirectoryError, match=rf"{shard.name} is damaged: answer"):
        [damaged[key.tobytes()] for key in Shard(shard).keys]


def test_the_command_asks_ahead_and_goes_on_where_it_was(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    settings = OFF_POLICY | {"teacher__cache": "{type: top_k, k: 12, rank: 8}"}
    words = [word for word in bench.words("cache", "ahead", **settings) if word not in ("--processes", "1")]
    assert not app(words, standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert f"kept: {ROWS_OF_A_BENCH} rows" in said
    assert "nats a token" in said
    store = stored(RunDir(bench.output / "ahead"))
    assert len(store) == ROWS_OF_A_BENCH
    shard = next(store.folder.glob("*.shard"))
    shard.unlink()  # as if it had been killed before it was written
    assert not app(words, standalone_mode=False)
    assert len(stored(RunDir(bench.output / "ahead"))) == ROWS_OF_A_BENCH


def test_a_recipe_without_a_cache_is_told_how_to_get_one(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in bench.words("cache", "none") if word not in ("--processes", "1")]
    assert app(words, standalone_mode=False) == Exit.INVALID
    assert "--teacher.cache.type=top_k" in "".join(capsys.readouterr().err.split("\n"))
