"""`dudi-kit doctor`: what this machine has, and what each thing that it lacks costs.

Imports nothing heavy: what must be tried is tried by `probes`, side by side, while the rest is looked up.
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.text import Text

from dudi_kit import __version__
from dudi_kit.console import err, out
from dudi_kit.errors import EnvironmentLack

GB = 10**9
PATIENCE = 60
"""Seconds that the probes have together; a machine under load imports torch slowly."""

HUB_PATIENCE = 4
"""Seconds that the hub has to answer."""

SHARED_MEMORY = 1 * GB
DISK_OUTPUTS, DISK_CACHE, MEMORY = 10 * GB, 20 * GB, 8 * GB
OPEN_FILES = 1024

OPTIONAL = {
    "tensorboard": "curves",
    "wandb": "curves online",
    "trackio": "curves",
    "vllm": "serving the student",
    "lm-eval": "benchmarks of the student",
    "liger-kernel": "tests of the losses",
}
"""What people use beside dudi-kit; no recipe needs one."""

SCRIPTS = {"th": "Thai", "my": "Burmese", "ta": "Tamil", "km": "Khmer", "lo": "Lao", "zh": "Chinese"}

State = Literal["ok", "warning", "error"]
SIGNS: dict[State, tuple[str, str]] = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    """`error`: dudi-kit can't run."""

    found: str
    cost: str = ""
    """What its lack costs, and the way out."""


def doctor(output: Path, *, as_json: bool) -> None:
    """Look at the machine and print it; EnvironmentLack where dudi-kit can't run."""
    with err.status("looking at the machine"):
        checks = list(look(output))
    if as_json:
        print(json.dumps(report(checks), indent=2, ensure_ascii=False))  # noqa: T201 – for programs
    else:
        _print(checks)
    if missing := [check.name for check in checks if check.state == "error"]:
        raise EnvironmentLack(f"dudi-kit can't run on this machine: see {', '.join(missing)}.")


def report(checks: list[Check]) -> dict[str, Any]:
    """The checks for programs."""
    usable = all(check.state != "error" for check in checks)
    return {"dudi_kit": __version__, "usable": usable, "checks": [asdict(check) for check in checks]}


def look(output: Path) -> Iterator[Check]:
    """All checks. output: folder of the run directories."""
    probes = {name: _start(name) for name in ("torch", "deepspeed", "bitsandbytes")}
    until = time.monotonic() + PATIENCE
    hub = _in_background(hub_reach)
    yield Check("python", "ok", f"{platform.python_version()}, dudi-kit {__version__}, {platform.platform()}")
    yield packages()
    lookups = [memory(), outputs(output), downloads()]
    others = [token(), shared_memory(), open_files(), fonts(), optional()]
    yield from devices(_answer(probes["torch"], until))
    yield engine(_answer(probes["deepspeed"], until))
    yield packed_teachers(_answer(probes["bitsandbytes"], until))
    yield from lookups
    yield hub()
    yield from others


# What is tried in processes of its own


def devices(found: dict[str, Any]) -> Iterator[Check]:
    """torch and what it computes on. found: what the probe answered."""
    if "failed" in found:
        yield Check("torch", "error", found["failed"], "nothing runs without it: pip install torch")
        return
    yield Check("torch", "ok", f"{found['version']}, built for {found['build']}")
    if gpus := found["devices"]:
        listed = ", ".join(f"{gpu['name']} {gpu['bytes'] / GB:,.0f} GB" for gpu in gpus)
        yield Check("GPUs", "ok", f"{len(gpus)}: {listed}")
    else:
        reason = "torch is a CPU build" if found["build"] == "CPU" else "torch finds none; is the driver there?"
        cost = "training runs on the CPU: fine for students below about 100 M parameters, days for larger ones"
        yield Check("GPUs", "warning", f"none ({reason}); {os.cpu_count()} CPU cores", cost)
    if found["bf16"]:
        yield Check("bf16", "ok", "computed by the hardware")
    else:
        yield Check("bf16", "warning", "emulated", "slower than fp32 here: set training.precision: fp32")


def engine(found: dict[str, Any]) -> Check:
    """DeepSpeed and the ops that it compiles."""
    if "failed" in found:
        return Check("deepspeed", "error", found["failed"], "nothing is trained without it: pip install deepspeed")
    text = f"{found['version']}; {len(found['built'])} of its ops are built, {len(found['compatible'])} can be compiled"
    if found["incompatible"]:
        text += f", not {', '.join(found['incompatible'])}"
    lacks = [name for name, there in (("C++ compiler", found["compiler"]), ("ninja", found["ninja"])) if not there]
    if lacks:
        cost = "DeepSpeed can compile none of its ops; dudi-kit trains with torch's AdamW and needs none"
        return Check("deepspeed", "warning", f"{text}; no {' and no '.join(lacks)}", cost)
    return Check("deepspeed", "ok", text)


def packed_teachers(found: dict[str, Any]) -> Check:
    """bitsandbytes."""
    cost = "teachers can't be packed to 8 or 4 bits, and take two to four times the memory in bf16"
    if "failed" in found:
        return Check("bitsandbytes", "warning", found["failed"], cost)
    if not found["error"] < 0.2:  # nf4's coarsest step near 1 is 0.28, and half of it the largest error
        return Check("bitsandbytes", "warning", f"{found['version']} packs wrongly (error {found['error']:.2f})", cost)
    return Check("bitsandbytes", "ok", f"{found['version']}: nf4 there and back on the {found['device'].upper()}")


def _start(probe: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "dudi_kit.pipeline.probes", probe]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603 – ours


def _answer(process: "subprocess.Popen[str]", until: float) -> dict[str, Any]:
    """What the probe found, or why it did not. until: when it is given up, on the monotonic clock."""
    try:
        text, _ = process.communicate(timeout=max(until - time.monotonic(), 0))
        return dict(json.loads(text))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return {"failed": f"no answer after {PATIENCE} s"}
    except ValueError:
        return {"failed": f"it ended without an answer (exit code {process.returncode})"}


# What is looked up


def packages() -> Check:
    """What pyproject.toml asks for."""
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in metadata.requires("dudi-kit") or []]
    except metadata.PackageNotFoundError:
        return Check("packages", "warning", "dudi-kit is not installed, only on the path", "nothing tells its needs")
    faults = []
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            version = _version(requirement.name)
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                faults.append(f"{requirement} (found {version or 'none'})")
    if faults:
        return Check("packages", "error", "; ".join(faults), "install them: pip install -c constraints.txt -e .")
    return Check("packages", "ok", "all that dudi-kit needs")


def memory() -> Check:
    """RAM, as far as this container may use it."""
    total = min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _container_limit())
    free = _free_memory(total)
    found = f"{free / GB:,.0f} of {total / GB:,.0f} GB free"
    if free < MEMORY:
        return Check("memory", "warning", found, "models of more than about 300 M parameters may not fit while loading")
    return Check("memory", "ok", found)


def outputs(folder: Path) -> Check:
    """Where run directories go."""
    cost = "a checkpoint takes 12 to 16 bytes a parameter: keep fewer, or set --output to a larger disk"
    return _disk("outputs", folder, DISK_OUTPUTS, cost, ("error", "nothing can be trained: set --output"))


def downloads() -> Check:
    """Where what comes from the hub goes."""
    from huggingface_hub import constants

    cost = "bf16 weights take 2 bytes a parameter: set HF_HOME to a larger disk"
    unwritable: tuple[State, str] = ("warning", "nothing can be fetched from the hub: set HF_HOME")
    return _disk("hub cache", Path(constants.HF_HUB_CACHE), DISK_CACHE, cost, unwritable)


def _disk(name: str, folder: Path, wanted: int, cost: str, unwritable: tuple[State, str]) -> Check:
    """Free space where a folder is, or will be, and whether we may write there."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    found = f"{shutil.disk_usage(there).free / GB:,.0f} GB free in {folder.absolute()}"
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Check(name, unwritable[0], f"can't write in {there}", unwritable[1])
    if shutil.disk_usage(there).free < wanted:
        fewer = "keep fewer checkpoints or set --output" if name == "outputs" else "set HF_HOME to a larger disk"
        size = (
            "checkpoints are 12 to 16 bytes a parameter"
            if name == "outputs"
            else "bf16 weights are 2 bytes a parameter"
        )
        return Check(name, "warning", found, f"{size}: {fewer}")
    return Check(name, "ok", found)


def hub_reach() -> Check:
    """Whether the hub, or the mirror that HF_ENDPOINT names, answers; any answer will do."""
    from huggingface_hub import constants

    cost = "only models and data that lie in folders or in the cache can be used"
    if constants.is_offline_mode():
        return Check("hub", "warning", "HF_HUB_OFFLINE is set", cost)
    try:
        request = Request(constants.ENDPOINT, method="HEAD")  # noqa: S310 – where the user's own setting points
        urlopen(request, timeout=HUB_PATIENCE).close()  # noqa: S310
    except HTTPError as error:
        error.close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Check("hub", "warning", f"{constants.ENDPOINT} can't be reached ({reason})", cost)
    return Check("hub", "ok", f"{constants.ENDPOINT} answers")


def token() -> Check:
    """Whether there is a token for the hub; it is never shown."""
    from huggingface_hub import get_token

    if get_token():
        return Check("hub token", "ok", "there is one")
    return Check("hub token", "warning", "none", "gated models (Llama, Gemma) can't be fetched: call hf auth login")


def shared_memory() -> Check:
    """Through it processes on one machine talk."""
    folder = "/dev/shm"  # noqa: S108 – only looked at
    if not os.path.isdir(folder):
        return Check("shared memory", "warning", f"no {folder}", "several processes on GPUs may fail to start")
    size = shutil.disk_usage(folder).total
    found = f"{size / GB:,.1f} GB in {folder}"
    if size < SHARED_MEMORY:
        cost = "several processes on GPUs may stop with a bus error: start the container with --shm-size=8g"
        return Check("shared memory", "warning", found, cost)
    return Check("shared memory", "ok", found)


def open_files() -> Check:
    """The limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    found = "no limit" if unlimited else f"{soft:,} at most"
    if not unlimited and soft < OPEN_FILES:
        return Check("open files", "warning", found, f"large data sets may fail to open: ulimit -n {min(hard, 65536)}")
    return Check("open files", "ok", found)


def fonts() -> Check:
    """Whether something here can draw the scripts of the region."""
    if shutil.which("fc-list") is None:
        return Check("fonts", "warning", "fontconfig is not here to tell", "text in plots may show as boxes")
    cost = "text of these scripts in plots may show as boxes: install Noto"
    missing = [name for code, name in SCRIPTS.items() if not _has_font(code)]
    if missing:
        return Check(
            "fonts",
            "warning",
            f"none for {', '.join(missing)}",
            cost,
        )
    return Check("fonts", "ok", f"for {', '.join(SCRIPTS.values())}")


def optional() -> Check:
    """Packages that no recipe needs."""
    versions = {name: _version(name) for name in OPTIONAL}
    there = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    lacking = ", ".join(f"{name} ({OPTIONAL[name]})" for name, version in versions.items() if not version)
    return Check("optional", "ok", "; ".join(part for part in (there, lacking and f"not here: {lacking}") if part))


def _has_font(language: str) -> bool:
    listed = subprocess.run(["fc-list", f":lang={language}", "family"], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return bool(listed.stdout.strip())


def _container_limit() -> int:
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no container, or "max"
        return sys.maxsize


def _free_memory(total: int) -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        return min(free, total)
    except (OSError, StopIteration, ValueError):
        return total


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _in_background(check: Callable[[], Check]) -> Callable[[], Check]:
    """Start a check that may hang (a name server can); what is returned waits for it, but not for ever."""
    results: list[Check] = []
    thread = threading.Thread(target=lambda: results.append(check()), daemon=True)  # dies with us, if it hangs
    thread.start()

    def wait() -> Check:
        thread.join(HUB_PATIENCE + 1)
        return (
            results[0] if results else Check("hub", "warning", f"no answer after {HUB_PATIENCE} s", "see HF_ENDPOINT")
        )

    return wait


def _print(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks) + 4
    for check in checks:
        sign, style = SIGNS[check.state]
        name = Text.assemble((f"{sign} ", style), (f"{check.name:{width - 2}}", "bold"))
        _print_hanging(name, Text(check.found))
        if check.cost:
            _print_hanging(Text(f"{'':{width}}→ "), Text(check.cost, style=style))


def _print_hanging(head: Text, text: Text) -> None:
    """A text wrapped at words beside its head, in a terminal; elsewhere it stays one line."""
    lines = wrap(text.plain, max(out.width - len(head), 20)) if out.is_terminal else [text.plain]
    for number, line in enumerate(lines):
        out.print(Text.assemble(" " * len(head) if number else head, (line, text.style)))
