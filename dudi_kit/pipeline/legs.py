"""env.json: machine, versions and time of a training, of every leg of one that was stopped and resumed."""

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dudi_kit.plan.fingerprint import package_versions
from dudi_kit.plan.layout import RunDir, write_json
from dudi_kit.plan.lock import model_hashes


@contextmanager
def leg(run: RunDir, processes: int, *, resume: bool) -> Iterator[None]:
    """Write a leg down when it begins, since it may be killed, and again when it ends, however it ends.

    At the top of env.json stand the first leg's beginning, the seconds of all legs together (those of a killed one are
    not known), and this leg's machine; a finished run adds the hashes of its final model.
    """
    earlier = _earlier(run) if resume else []
    began = time.time()
    this: dict[str, Any] = {
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began)),
        "seconds": None,
        "processes": processes,
        "system": platform.platform(),
    }
    legs = [*earlier, this]
    settings = _settings(run)
    write_json(run.environment, _environment(legs) | settings)
    try:
        yield
    finally:
        this["seconds"] = round(time.time() - began, 1)
        final = {"final": model_hashes(run.final)} if run.complete() else {}
        write_json(run.environment, _environment(legs) | settings | final)


def _environment(legs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "packages": package_versions(),
        **legs[-1],
        "began": legs[0]["began"],
        "seconds": round(sum(part["seconds"] or 0 for part in legs), 1),
        "legs": legs,
    }


def _settings(run: RunDir) -> dict[str, Any]:
    """The seed, and whether only deterministic algorithms were allowed; nothing where there is no recipe."""
    try:
        training = json.loads(run.resolved.read_text(encoding="utf-8"))["training"]
        return {key: training[key] for key in ("seed", "deterministic")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _earlier(run: RunDir) -> list[dict[str, Any]]:
    """Legs that were written down; none where the file is missing or somebody else's."""
    try:
        legs = json.loads(run.environment.read_text(encoding="utf-8"))["legs"]
        return [{key: part[key] for key in ("began", "seconds", "processes", "system")} for part in legs]
    except (OSError, ValueError, KeyError, TypeError):
        return []
