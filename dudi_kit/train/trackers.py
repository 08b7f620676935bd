"""Who shows the metrics besides metrics.jsonl: TensorBoard, Weights & Biases, Trackio, through Accelerate's trackers.

metrics.jsonl has every line first. A tracker that can't start, or fails later (a network that is away), is said once,
its misses are counted, and training goes on. Nothing here is asked for a password: accounts are those that the machine
is logged in to.
"""

import contextlib
import io
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker

from dudi_kit.console import notice
from dudi_kit.plan.layout import RunDir, write_json
from dudi_kit.plan.trackers import wanted_trackers
from dudi_kit.recipe.schema import Recipe

TOLD = ("signals", "rollouts", "training")
"""Sections of the recipe that a tracker is told as settings of the run: no paths, no data."""


@dataclass
class _Told:
    """A tracker that has started."""

    name: str
    tracker: GeneralTracker
    missed: int = 0
    """Lines that it did not take."""


@dataclass
class Trackers:
    """The trackers of one run; they run in the first process only, in the others nothing happens."""

    run: RunDir
    recipe: Recipe
    main: bool
    _told: list[_Told] = field(default_factory=list)

    @contextmanager
    def running(self, first_step: int) -> Iterator[None]:
        """Start them, to go on after `first_step` where the run is resumed, and close them in the end."""
        if self.main:
            for name in wanted_trackers(self.recipe.output.trackers):
                self._start(name, first_step)
        try:
            yield
        finally:
            for told in self._told:
                self._close(told)
            self._told.clear()

    def log(self, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, under the same names, with / between the keys."""
        values = dict(flat(line))
        for told in self._told:
            try:
                told.tracker.log(values, step=line["step"])
            except Exception as error:  # whatever a service or its package raises
                if not told.missed:
                    notice(f"tracker {told.name}: {_short(error)}; training goes on without it", style="yellow")
                told.missed += 1

    def _start(self, name: str, first_step: int) -> None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # they greet, and advertise their dashboards
                tracker = STARTERS[name](self.run, self.recipe, first_step)
                tracker.start()
                if name != "tensorboard":  # which would make a run of its own of them
                    tracker.store_init_configuration(settings_of(self.recipe))
        except Exception as error:
            notice(f"tracker {name} can't start: {_short(error)}; training goes on without it", style="yellow")
        else:
            self._told.append(_Told(name, tracker))

    def _close(self, told: _Told) -> None:
        if told.missed:
            notice(f"tracker {told.name}: {told.missed:,} lines are in {self.run.metrics} only", style="yellow")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                told.tracker.finish()
        except Exception as error:
            notice(f"tracker {told.name} did not close: {_short(error)}", style="yellow")


def flat(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a nested line: `signals/on_policy/by_language/th`."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from flat(below, f"{path}/{key}" if path else str(key))
    elif isinstance(value, int | float) and path != "step":
        yield path, float(value)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a tracker is told of the recipe, by dotted path."""
    return dict(_leaves(recipe.model_dump(mode="json", include={"name", *TOLD})))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else str(key))
    else:
        yield path, value if isinstance(value, str | int | float | None) else json.dumps(value)


def run_id(run: RunDir) -> str:
    """The run's name with a service, made once: a resumed run goes on under it."""
    try:
        return str(json.loads(run.trackers.read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        made = secrets.token_hex(4)
        write_json(run.trackers, {"id": made})
        return made


def _tensorboard(run: RunDir, recipe: Recipe, first_step: int) -> GeneralTracker:
    # What was written after the checkpoint is written again: its reader is told to forget it.
    purge = {"purge_step": first_step + 1} if first_step else {}
    return TensorBoardTracker("tensorboard", logging_dir=str(run.logs), **purge)


def _wandb(run: RunDir, recipe: Recipe, first_step: int) -> GeneralTracker:
    import wandb  # late: a recipe must ask for it

    settings = recipe.output.trackers.wandb
    assert settings is not None, "asked for"
    if settings.mode == "online" and not wandb.login(prompt=False):
        raise RuntimeError("this machine is not logged in: run `wandb login`, or set mode: offline")
    run.logs.mkdir(parents=True, exist_ok=True)
    return WandBTracker(
        settings.project,
        entity=settings.entity,
        name=recipe.name,
        id=run_id(run),
        resume="allow",
        mode=settings.mode,
        dir=str(run.logs),
        save_code=False,
        settings=wandb.Settings(console="off", disable_git=True, disable_code=True),
    )


def _trackio(run: RunDir, recipe: Recipe, first_step: int) -> GeneralTracker:
    settings = recipe.output.trackers.trackio
    assert settings is not None, "asked for"
    os.environ["TRACKIO_DIR"] = str(run.logs / "trackio")  # read when the package is imported
    return TrackioTracker(
        settings.project,
        name=f"{recipe.name}-{run_id(run)}",
        space_id=settings.space,
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )


STARTERS: dict[str, Callable[[RunDir, Recipe, int], GeneralTracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}


def _short(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
