"""A recipe by reference sends no metrics anywhere, unless the user says where on the command line."""

from pathlib import Path
from typing import Any

import pytest

from dudi_kit.recipe.load import check_recipe, load_recipe

RECIPE = """
name: x
teacher: {model: owner/teacher, revision: abc}
student: {model: owner/student, revision: abc}
data: {train: {rows: {builtin: train}}}
output: {trackers: %s}
"""
WANDB: tuple[str, str] = ("output.trackers.wandb.project", "mine")
SPACE: tuple[str, str] = ("output.trackers.trackio.space", "me/curves")


def write(folder: Path, trackers: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE % trackers, encoding="utf-8")
    return path


def trackers_of(path: Path, *overrides: tuple[str, str], root: Path | None) -> Any:
    return load_recipe(path, overrides, root).recipe.output.trackers


SENDING = "{wandb: {entity: theirs, project: theirs}, trackio: {space: them/curves}}"


def test_what_would_send_is_off_and_said(tmp_path: Path) -> None:
    path = write(tmp_path, SENDING)
    shown = trackers_of(path, root=tmp_path)
    assert shown.wandb is None
    assert shown.trackio is None
    findings = [found for found in check_recipe(path, root=tmp_path).findings if found.code == "sends"]
    assert {found.path: found.hint.partition("=")[0] for found in findings} == {
        "output.trackers.wandb": "--output.trackers.wandb.project",
        "output.trackers.trackio": "--output.trackers.trackio.space",
    }
    assert {found.severity for found in findings} == {"warning"}


def test_the_user_turns_each_on_by_saying_where(tmp_path: Path) -> None:
    path = write(tmp_path, SENDING)
    shown = trackers_of(path, WANDB, root=tmp_path)
    assert shown.wandb.project == "mine"
    assert shown.trackio is None
    shown = trackers_of(path, SPACE, root=tmp_path)
    assert shown.trackio.space == "me/curves"
    assert shown.wandb is None


@pytest.mark.parametrize("another", [("output.trackers.wandb.mode", "online"), ("training.seed", "1")])
def test_another_key_turns_nothing_on(tmp_path: Path, another: tuple[str, str]) -> None:
    assert trackers_of(write(tmp_path, "{wandb: {project: theirs}}"), another, root=tmp_path).wandb is None


def test_what_stays_here_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "{tensorboard: off, wandb: {mode: offline}, trackio: {}}")
    shown = trackers_of(path, root=tmp_path)
    assert shown.wandb.mode == "offline"
    assert shown.trackio is not None
    assert not any(found.code == "sends" for found in check_recipe(path, root=tmp_path).findings)


def test_the_users_own_recipe_is_theirs(tmp_path: Path) -> None:
    shown = trackers_of(write(tmp_path, SENDING), root=None)
    assert shown.wandb.entity == "theirs"
    assert shown.trackio.space == "them/curves"


@pytest.mark.parametrize("odd", ["3", "[wandb]", "{wandb: 3}", "{wandb: {mode: [offline]}}", "{trackio: null}"])
def test_odd_values_do_not_trip_it(tmp_path: Path, odd: str) -> None:
    check_recipe(write(tmp_path, odd), root=tmp_path)
