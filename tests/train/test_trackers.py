"""TensorBoard is read back; W&B and Trackio are stand-ins that take what the packages take, so that nothing is sent."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dudi_kit.errors import EnvironmentLack
from dudi_kit.plan import trackers as planned
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.trackers import tracker_notices, wanted_trackers
from dudi_kit.recipe.load import load_recipe
from dudi_kit.recipe.schema.output import Trackers as Settings
from dudi_kit.train.trackers import Trackers, flat, run_id, settings_of

RECIPE = """
name: small
student: {model: owner/student, revision: v1}
teacher: {model: owner/teacher, revision: v1}
data: {train: {rows: {builtin: train}}}
output: {trackers: %s}
"""
LINE: dict[str, Any] = {
    "step": 3,
    "loss": 2.5,
    "grad_norm": None,
    "signals": {"sft": {"loss": 1.5, "by_language": {"th": 1.25}, "gradient": {"norm": 0.5, "cosine": None}}},
    "spikes": {"loss": 7.5},
}
FLAT = {
    "loss": 2.5,
    "signals/sft/loss": 1.5,
    "signals/sft/by_language/th": 1.25,
    "signals/sft/gradient/norm": 0.5,
    "spikes/loss": 7.5,
}


class Service(ModuleType):
    """A package that shows curves: `init` gives a run that remembers."""

    def __init__(self, name: str, *, logged_in: bool = True) -> None:
        super().__init__(name)
        self.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]
        self.begun: list[dict[str, Any]] = []
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.settings: dict[str, Any] = {}
        self.finished = 0
        self.away = False
        self.config = SimpleNamespace(update=lambda values, **_: self.settings.update(values))
        self.login = lambda prompt: logged_in and not prompt
        self.Settings = dict

    def init(self, **options: Any) -> Any:
        self.begun.append(options)
        return SimpleNamespace(log=self._log, finish=self._finish)

    def _log(self, values: dict[str, float], step: int) -> None:
        if self.away:
            raise ConnectionError("no route to host\nand so on")
        self.lines.append((step, values))

    def _finish(self) -> None:
        self.finished += 1


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run")
    made.logs.mkdir(parents=True)
    return made


def service(monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> Service:
    made = Service(name, **options)
    monkeypatch.setitem(sys.modules, name, made)
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    return made


def trackers(run: RunDir, settings: str, *, main: bool = True) -> Trackers:
    file = run.path.parent / "recipe.yaml"
    file.write_text(RECIPE % settings)
    return Trackers(run, load_recipe(file).recipe, main=main)


def told(run: RunDir) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.logs / "tensorboard"))
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_line_is_told_under_its_own_names_without_what_is_no_number():
    assert dict(flat(LINE)) == FLAT


def test_tensorboard_is_on_by_default_and_has_every_number(run):
    shown = trackers(run, "{}")
    with shown.running(0):
        shown.log(LINE)
        shown.log(LINE | {"step": 4, "loss": 2.0})
    assert {name: values[0] for name, values in told(run).items()} == {name: (3, value) for name, value in FLAT.items()}
    assert told(run)["loss"] == [(3, 2.5), (4, 2.0)]
    assert not run.trackers.exists()


def test_after_a_resume_tensorboard_has_each_step_once(run):
    shown = trackers(run, "{}")
    with shown.running(0):
        for step in (1, 2, 3):
            shown.log(LINE | {"step": step, "loss": float(step)})
    with shown.running(2):
        shown.log(LINE | {"step": 3, "loss": 30.0})
    assert told(run)["loss"] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_off_and_every_process_but_the_first_write_nothing(run):
    for shown in (trackers(run, "{tensorboard: off}"), trackers(run, "{tensorboard: on}", main=False)):
        with shown.running(0):
            shown.log(LINE)
    assert list(run.logs.iterdir()) == []


def test_wandb_goes_on_in_the_same_run_and_is_told_settings_without_paths(monkeypatch, run):
    wandb = service(monkeypatch, "wandb")
    shown = trackers(run, "{tensorboard: off, wandb: {project: sea, entity: team}}")
    for first in (0, 3):
        with shown.running(first):
            shown.log(LINE)
    one, two = wandb.begun
    assert one == two
    assert {key: one[key] for key in ("project", "entity", "name", "mode", "dir", "resume", "save_code")} == {
        "project": "sea", "entity": "team", "name": "small", "mode": "online", "dir": str(run.logs),
        "resume": "allow", "save_code": False,
    }  # fmt: skip
    assert one["id"] == run_id(run) == json.loads(run.trackers.read_text())["id"]
    assert "base_url" not in one["settings"]
    assert wandb.lines == [(3, FLAT)] * 2
    assert wandb.settings["training.batch_size"] == 16
    assert {name.partition(".")[0] for name in wandb.settings} == {"name", "signals", "rollouts", "training"}
    assert wandb.finished == 2


def test_trackio_stays_in_the_run_directory_unless_it_has_a_space(monkeypatch, run):
    trackio = service(monkeypatch, "trackio")
    with trackers(run, "{tensorboard: off, trackio: {}}").running(0):
        pass
    with trackers(run, "{tensorboard: off, trackio: {space: alice/curves}}").running(0):
        pass
    assert [each["space_id"] for each in trackio.begun] == [None, "alice/curves"]
    assert trackio.begun[0]["name"] == f"small-{run_id(run)}"
    assert Path(os.environ["TRACKIO_DIR"]) == run.logs / "trackio"


def test_a_tracker_that_fails_is_told_once_and_counted_and_the_others_go_on(monkeypatch, run, capsys):
    wandb = service(monkeypatch, "wandb")
    shown = trackers(run, "{wandb: {}}")
    with shown.running(0):
        shown.log(LINE)
        wandb.away = True
        for step in (4, 5, 6):
            shown.log(LINE | {"step": step})
    said = capsys.readouterr().err
    assert said.count("no route to host") == 1
    assert "tracker wandb: 3 lines are in" in said
    assert "and so on" not in said
    assert [step for step, _ in told(run)["loss"]] == [3, 4, 5, 6]
    assert wandb.finished == 1


def test_without_an_account_nobody_is_asked_and_training_goes_on(monkeypatch, run, capsys):
    wandb = service(monkeypatch, "wandb", logged_in=False)
    with trackers(run, "{tensorboard: off, wandb: {}}").running(0):
        pass
    assert wandb.begun == []
    assert "run `wandb login`, or set mode: offline; training goes on" in capsys.readouterr().err
    with trackers(run, "{tensorboard: off, wandb: {mode: offline}}").running(0):
        pass
    assert wandb.begun[0]["mode"] == "offline"


def test_a_run_that_fails_closes_its_trackers(monkeypatch, run):
    wandb = service(monkeypatch, "wandb")
    with pytest.raises(ZeroDivisionError), trackers(run, "{tensorboard: off, wandb: {}}").running(0):
        raise ZeroDivisionError
    assert wandb.finished == 1


def test_settings_are_plain_values(run):
    settings = settings_of(trackers(run, "{}").recipe)
    assert settings["name"] == "small"
    assert settings["training.betas"] == "[0.9, 0.999]"
    assert all(value is None or isinstance(value, str | int | float) for value in settings.values())


# --- the plan


@pytest.mark.parametrize("settings", [{"tensorboard": "on"}, {"wandb": {}}, {"trackio": {}}])
def test_a_tracker_that_the_recipe_names_must_be_installed(monkeypatch, settings):
    monkeypatch.setattr(planned, "find_spec", lambda name: None)
    (name,) = settings
    with pytest.raises(EnvironmentLack, match=rf"output.trackers.{name}: .*dudi-kit\[trackers\]"):
        wanted_trackers(Settings.model_validate(settings))


def test_tensorboard_by_default_is_missed_in_a_notice_only(monkeypatch):
    monkeypatch.setattr(planned, "find_spec", lambda name: None)
    assert wanted_trackers(Settings()) == []
    (said,) = tracker_notices(Settings())
    assert "tensorboard is not installed" in said
    assert list(tracker_notices(Settings(tensorboard="off"))) == []


def test_the_plan_says_what_is_sent_where(monkeypatch):
    monkeypatch.setattr(planned, "find_spec", lambda name: "there")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    settings = Settings.model_validate({"wandb": {"entity": "team"}, "trackio": {"space": "alice/curves"}})
    wandb, trackio = tracker_notices(settings)
    assert "every line of metrics.jsonl" in wandb
    assert "https://wandb.example.org, project team/dudi-kit" in wandb
    assert "the Space alice/curves on the hub" in trackio
    local = Settings.model_validate({"wandb": {"mode": "offline"}, "trackio": {}})
    assert list(tracker_notices(local)) == []
