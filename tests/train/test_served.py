"""Rollouts by a server: it says what the student would, with the student's own weights, or there is a clear error."""

import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import LlamaConfig, LlamaForCausalLM

from dudi_kit.errors import EnvironmentLack
from dudi_kit.models.generation import Stops
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.rollouts import Rollouts, VllmEngine
from dudi_kit.train.clock import NoClock
from dudi_kit.train.engine import Student
from dudi_kit.train.loop import Loop, _LeftStep
from dudi_kit.train.rollouts import OwnSampler
from dudi_kit.train.served import VllmServer
from dudi_kit.train.served_sampler import ServedSampler, write_weights
from tests.train.bench import Bench, leaves, metrics
from tests.train.conftest import GREEDY, MEASURED, Runs
from tests.train.vllm_server import FakeVllm, serving

PIECES = 24
STOPS = Stops((22, 23), 22)
PROMPTS = [[1, 2, 3], [4] * 20, [5], [6, 7, 8, 9, 10, 11], [12, 13]]
ROWS = [Row(i, "id", "mine", prompt, [1, 22], {}) for i, prompt in enumerate(PROMPTS)]
COMMAND = "vllm serve here"


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=PIECES, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.4,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture
def fake() -> FakeVllm:
    return FakeVllm()


@pytest.fixture
def url(fake: FakeVllm) -> Iterator[str]:
    with serving(fake) as address:
        yield address


Served = Callable[..., ServedSampler]


@pytest.fixture
def served(url: str, model: Any, tmp_path: Path) -> Served:
    """A sampler on the server. pieces: that may be said, from the first on."""
    model.config.save_pretrained(tmp_path)

    def make(pieces: int = PIECES, refresh_every: int = 1, **settings: Any) -> ServedSampler:
        engine = VllmEngine(type="vllm", url=url, refresh_every=refresh_every, timeout=20.0)
        rollouts = Rollouts(max_new_tokens=8, engine=engine, **settings)
        server = VllmServer(engine, command=COMMAND, pauses=(0, 0))
        sayable = torch.ones(pieces, dtype=torch.bool)
        return ServedSampler(rollouts, server, Accelerator(cpu=True), tmp_path, stops=STOPS, sayable_V=sayable, seed=3)

    return make


def own(model: Any, pieces: int = PIECES) -> list[Any]:
    settings = Rollouts(max_new_tokens=8, temperature=0)
    sayable = torch.ones(pieces, dtype=torch.bool)
    return OwnSampler(settings, stops=STOPS, sayable_V=sayable, seed=3).sample(model, ROWS, 0)


def learn(model: Any) -> None:
    """What a step might do, only larger."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)


# --- what is sampled


@pytest.mark.parametrize("pieces", [PIECES, 23, 12])
def test_greedy_samples_are_those_of_transformers(served: Served, model: Any, pieces: int) -> None:
    assert served(pieces, temperature=0.0).sample(model, ROWS, step=0) == own(model, pieces)


def test_the_server_follows_the_student_as_it_learns(served: Served, model: Any) -> None:
    sampler = served(temperature=0.0)
    before = sampler.sample(model, ROWS, step=0)
    learn(model)
    after = sampler.sample(model, ROWS, step=1)
    assert after == own(model) != before
    assert sampler.facts["weights_age"] == [0] * len(ROWS)


def test_between_two_refreshes_samples_are_of_older_weights_and_it_is_told(served: Served, model: Any) -> None:
    sampler = served(temperature=0.0, refresh_every=2)
    before = sampler.sample(model, ROWS, step=0)
    learn(model)
    assert sampler.sample(model, ROWS, step=1) == before
    assert sampler.facts["weights_age"] == [1] * len(ROWS)
    assert sampler.sample(model, ROWS, step=2) == own(model) != before


def test_keys_of_older_weights_are_forgotten_after_each_refresh(served: Served, model: Any, fake: FakeVllm) -> None:
    served().sample(model, ROWS, step=0)
    paths = [path if path != "/collective_rpc" else body["method"] for path, body in fake.seen]
    assert paths[paths.index("reload_weights") + 1] == "/reset_prefix_cache"
    assert "/v1/completions" not in paths[: paths.index("/reset_prefix_cache")]


def test_each_sample_has_a_seed_of_its_own_and_the_same_one_again(served: Served, model: Any, fake: FakeVllm) -> None:
    def seeds(step: int) -> list[int]:
        fake.seen.clear()
        said = sampler.sample(model, ROWS, step)
        assert said == sampler.sample(model, ROWS, step)
        return [body["seed"] for path, body in fake.seen if "seed" in body]

    sampler = served()
    first, second = seeds(0), seeds(1)
    assert len(set(first)) == len(ROWS)
    assert sorted(first[: len(ROWS)]) == sorted(first[len(ROWS) :])
    assert not set(first) & set(second)


@pytest.mark.parametrize("pieces", [23, 10])
def test_pieces_that_must_not_be_said_never_are_and_redraws_are_counted(
    served: Served, model: Any, fake: FakeVllm, pieces: int
) -> None:
    fake.heeds_bias = False
    sampler = served(pieces, temperature=2.0)
    said = sampler.sample(model, ROWS, step=0)
    assert all(token < pieces for rollout in said for token in rollout.ids)
    assert sum(sampler.facts["redraws"]) > 0
    assert all(rollout.ended == (rollout.ids[-1] in STOPS.stop_ids) for rollout in said)
    assert all(len(rollout.ids) == 8 for rollout in said if not rollout.ended)


def test_a_greedy_server_that_insists_on_such_a_piece_is_an_error(served: Served, model: Any, fake: FakeVllm) -> None:
    fake.heeds_bias = False
    with torch.no_grad():
        model.lm_head.weight[10:] *= 5
    with pytest.raises(EnvironmentLack, match="again and again"):
        served(10, temperature=0.0).sample(model, ROWS, step=0)


# --- when it is to stop


def test_a_process_that_is_asked_to_stop_still_hands_over_its_weights_with_the_others(
    served: Served, model: Any, fake: FakeVllm
) -> None:
    """Alone it would leave the others waiting for it."""
    loop = stopping_loop(model, served())
    with pytest.raises(_LeftStep):
        loop._rollouts(ROWS, 0)
    assert "reload_weights" in [body.get("method") for _, body in fake.seen]


def test_a_process_that_samples_by_itself_leaves_between_two_tokens(model: Any) -> None:
    sampler = OwnSampler(
        Rollouts(max_new_tokens=8), stops=STOPS, sayable_V=torch.ones(PIECES, dtype=torch.bool), seed=3
    )
    passes: list[int] = []
    model.lm_head.register_forward_hook(lambda *_: passes.append(1))
    with pytest.raises(_LeftStep):
        stopping_loop(model, sampler)._rollouts(ROWS, 0)
    assert passes == []


def stopping_loop(model: Any, sampler: Any) -> Loop:
    """As much of a loop as sampling needs; it has been asked to stop."""
    loop = Loop.__new__(Loop)
    loop.student = Student(model, None, lambda: nullcontext(model))
    loop.sampler = sampler
    loop.accelerator = sampler.accelerator if isinstance(sampler, ServedSampler) else Accelerator(cpu=True)
    loop.around = SimpleNamespace(stop=SimpleNamespace(asked=signal.SIGTERM), agree=bool, clock=NoClock())
    return loop


# --- when it fails


def test_a_server_that_comes_back_with_other_weights_gets_the_students_again(
    served: Served, model: Any, fake: FakeVllm
) -> None:
    sampler = served(temperature=0.0, refresh_every=5)
    first = sampler.sample(model, ROWS, step=0)
    learn(fake.model)  # as if it had been started anew
    assert sampler.sample(model, ROWS, step=1) == first


def test_a_server_that_is_started_anew_while_it_takes_weights_is_told_again_how(
    served: Served, model: Any, fake: FakeVllm
) -> None:
    fake.restarts = 2
    assert served(temperature=0.0).sample(model, ROWS, step=0) == own(model)


def test_a_server_that_fails_now_and_then_is_asked_again(served: Served, model: Any, fake: FakeVllm) -> None:
    sampler = served(temperature=0.0)
    fake.failures = 2
    assert sampler.sample(model, ROWS, step=0) == own(model)


def test_a_server_that_takes_no_weights_is_found_out(served: Served, model: Any, fake: FakeVllm) -> None:
    sampler = served()
    sampler.sample(model, ROWS, step=0)
    fake.loads = False
    learn(model)
    with pytest.raises(EnvironmentLack, match=r"another model than the student: .* nats apart.*\(step 2\)"):
        sampler.sample(model, ROWS, step=1)


def test_a_lost_server_is_named_with_the_step_and_the_way_on(served: Served, model: Any, fake: FakeVllm) -> None:
    sampler = served()
    sampler.sample(model, ROWS, step=3)
    fake.failures = 10**6
    with pytest.raises(EnvironmentLack) as lost:
        sampler.sample(model, ROWS, step=4)
    for part in (sampler.server.url, "at step 5", "503", "tried 3 times", COMMAND, "--resume"):
        assert part in str(lost.value)


def _server(url: str) -> VllmServer:
    return VllmServer(VllmEngine(type="vllm", url=url, timeout=5.0), command=COMMAND, pauses=(0,))


def test_nobody_there_is_said_before_training() -> None:
    with pytest.raises(EnvironmentLack, match=r"127.0.0.1:9 failed before training: ConnectionError.*vllm serve here"):
        _server("http://127.0.0.1:9").check(10)


def test_a_server_that_reads_too_little_is_refused(url: str) -> None:
    with pytest.raises(EnvironmentLack, match=r"reads 256 tokens.*257.*--max-model-len 257"):
        _server(url).check(257)


def test_a_server_outside_dev_mode_is_told_what_it_lacks(url: str, fake: FakeVllm) -> None:
    fake.dev_mode = False
    with pytest.raises(EnvironmentLack, match="VLLM_SERVER_DEV_MODE=1"):
        _server(url).check(10)


def test_no_redirect_is_followed(url: str, fake: FakeVllm, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    elsewhere = FakeVllm()
    monkeypatch.setattr(elsewhere, "answer", lambda path, body: asked.append(path) or (200, {}))
    with serving(elsewhere) as other:
        monkeypatch.setattr(fake, "answer", lambda path, body: (307, {"to": other + path}))
        with pytest.raises(EnvironmentLack, match="307"):
            _server(url).check(10)
    assert asked == []


def test_weights_are_replaced_and_never_written_over(model: Any, tmp_path: Path) -> None:
    write_weights(model, tmp_path)
    with (tmp_path / "model.safetensors").open("rb") as held:
        before = held.read()
        learn(model)
        write_weights(model, tmp_path)
        held.seek(0)
        assert held.read() == before
    assert (tmp_path / "model.safetensors").read_bytes() != before
    assert not (tmp_path / ".partial").exists()


# --- whole runs


def test_two_processes_with_a_server_train_as_one_without(bench: Bench, runs: Runs, fake: FakeVllm, url: str) -> None:
    engine = f"{{type: vllm, url: '{url}'}}"
    run = bench.train("2x4-served", 2, rollouts__engine=engine, **GREEDY, **MEASURED)
    found, expected = metrics(run), metrics(runs["1x8"])
    assert len([body for _, body in fake.seen if body.get("method") == "reload_weights"]) == 5
    for line, wanted in zip(found, expected, strict=True):
        numbers, theirs = leaves(line), leaves(wanted)
        assert {name: numbers[name] for name in theirs} == pytest.approx(theirs, rel=2e-4, abs=2e-5)
        assert line["rollouts"]["server_gap"]["all"] < 1e-3
        assert line["rollouts"]["weights_age"]["all"] == line["rollouts"]["redraws"]["all"] == 0
