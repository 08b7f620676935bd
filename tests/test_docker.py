"""What can be known of the images without building them; .ci has no docker. hadolint's rules were run by hand."""

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dudi_kit.plan.hardware import parse_hardware
from dudi_kit.plan.launchers import launchers

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
IMAGES = sorted(DOCKER.glob("*.Dockerfile"))
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, rest) with continued lines joined and comments left out."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def arguments(file: Path, wanted: str) -> list[str]:
    return [rest for word, rest in instructions(file) if word == wanted]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the context out: the last pattern that fits decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if line and not line.startswith("#"):
            parts = path.split("/")
            names = {path, *parts} if "**/" in line else {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
            if any(fnmatch.fnmatchcase(name, pattern) for name in names):
                out = not line.startswith("!")
    return out


def test_there_is_an_image_for_the_cpu_and_one_for_gpus():
    assert [file.name for file in IMAGES] == ["cpu.Dockerfile", "cuda.Dockerfile"]


@pytest.mark.parametrize("file", IMAGES, ids=lambda file: file.stem)
class TestImage:
    def test_what_is_copied_is_there_and_reaches_the_build(self, file):
        sources = [word for rest in arguments(file, "COPY") for word in rest.split()[:-1]]
        assert "constraints.txt" in sources
        for source in sources:
            assert (ROOT / source).exists(), source
            assert not ignored(source), source

    def test_every_install_is_held_to_the_constraints_and_keeps_no_cache(self, file):
        installs = [
            command for rest in arguments(file, "RUN") for command in rest.split("&&") if "pip install" in command
        ]
        assert len(installs) == 3
        for install in installs:
            assert "--no-cache-dir" in install
            assert "-c constraints.txt" in install or "--no-deps" in install, install
        assert "torch==" in (ROOT / "constraints.txt").read_text(encoding="utf-8")

    def test_torch_comes_before_the_dependencies_and_these_before_the_code(self, file):
        made = [rest for word, rest in instructions(file) if word in ("COPY", "RUN")]
        torch, dependencies, code = (
            next(i for i, rest in enumerate(made) if sign in rest)
            for sign in ("-c constraints.txt torch", '".[trackers]"', "dudi_kit dudi_kit")
        )
        assert torch < dependencies < code

    def test_it_runs_dudi_kit_as_a_user_who_is_not_root(self, file):
        assert arguments(file, "USER")[-1] == "1000:1000"
        assert arguments(file, "ENTRYPOINT") == ['["dudi-kit"]']
        words = [word for word, _ in instructions(file)]
        assert words.index("USER") > max(i for i, word in enumerate(words) if word == "RUN")

    def test_the_hubs_cache_is_on_a_volume(self, file):
        (volume,) = arguments(file, "VOLUME")
        assert f"HF_HOME={volume}/" in " ".join(arguments(file, "ENV"))

    def test_the_base_is_a_released_python_that_we_support(self, file):
        (base,) = arguments(file, "ARG")
        version = re.fullmatch(r"BASE=python:(\d+)\.(\d+)\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
        assert version is not None, base
        assert (int(version[1]), int(version[2])) >= (3, 11)


def test_both_images_are_built_of_the_same_steps():
    """But for the build of torch, the compiler, and what a GPU needs."""
    cpu, cuda = (instructions(file) for file in IMAGES)
    missing = [step for step in cpu if step not in cuda]
    assert [rest.split()[-1] for _, rest in missing] == ["torch"]


def test_nothing_but_what_is_copied_reaches_the_build():
    for path in ("outputs/x/final", ".git/config", ".venv/bin/python", "tests/small.py", "dudi_kit/__pycache__/a.pyc"):
        assert ignored(path), path
    assert not ignored("dudi_kit/train/loop.py")


def test_every_service_names_files_that_are_there():
    for name, service in SERVICES.items():
        context = DOCKER / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).is_file(), name
        binds = [volume for volume in service["volumes"] if isinstance(volume, dict)]
        assert (DOCKER / binds[0]["source"]).is_dir()
        assert binds[0]["read_only"]
        assert binds[1]["target"] == "/work/outputs"
        assert {volume.partition(":")[0] for volume in service["volumes"] if isinstance(volume, str)} <= COMPOSE[
            "volumes"
        ].keys()


def test_every_service_has_time_to_save_and_goes_on():
    for service in SERVICES.values():
        assert service["stop_signal"] == "SIGTERM"
        assert service["stop_grace_period"] == "10m"
        assert service["init"]
        assert service["command"][-1] == "--resume"
        assert not service["user"].startswith("0")


def test_the_cpu_service_runs_the_quickstart():
    assert (ROOT / SERVICES["cpu"]["command"][1]).is_file()
    assert "deploy" not in SERVICES["cpu"]


@pytest.mark.parametrize("name", ["gpu", "node"])
def test_gpu_services_get_gpus_and_room_for_nccl(name):
    (device,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert SERVICES[name]["ipc"] == "host"
    assert SERVICES[name]["ulimits"]["memlock"] == -1


def test_a_node_is_started_as_the_plan_says():
    planned = launchers("/work/outputs/mine", parse_hardware("2x8xH100-80G", processes=None))["torchrun"]
    service = SERVICES["node"]
    values = {"NODES": "2", "GPUS": "8", "RUN": "mine", "MASTER_ADDR": '"$MASTER_ADDR'}
    command = [re.sub(r"\$\{(\w+):-[^}]*\}", lambda name: values[name[1]], word) for word in service["command"]]
    assert " ".join([*service["entrypoint"], *command]) == planned.replace(':29500"', ":29500")
    assert service["network_mode"] == "host"


def test_the_page_names_files_and_services_that_there_are():
    page = (DOCKER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"[\w.]+\.Dockerfile", page)) == {file.name for file in IMAGES}
    assert set(re.findall(r"run --rm (\w+)\b(?= |$)", page, re.MULTILINE)) <= SERVICES.keys()
