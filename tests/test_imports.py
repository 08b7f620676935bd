"""The house stands as DESIGN draws it: imports point one way, and the light rooms stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dudi_kit"
ROOMS = ("recipe", "data", "verbalizer", "models", "signals", "plan", "train", "evaluate", "report")
"""Each may import from itself and from those before it."""

FOR_ALL = frozenset({"errors", "console", "noise"})
SEES_ALL = frozenset({"cli", "pipeline"})

BESIDE = {"fetch": frozenset({"recipe"})}
"""Parts that only the command line sees, and what they may import. `fetch` speaks to the network before torch is there,
which recipe/ never does; recipe/ knows what there is to fetch."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported_names(module: Path) -> Iterator[str]:
    """Dotted names of all that a module imports, wherever in it."""
    inside = module.relative_to(PACKAGE.parent).with_suffix("").parts
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(inside[: -node.level]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            yield from (f"{origin}.{name.name}" for name in node.names)


def rooms_imported(module: Path) -> set[str]:
    """The parts of dudi_kit that a module imports from; names such as `__version__` are no part."""
    parts = (name.split(".")[1] for name in imported_names(module) if name.startswith("dudi_kit."))
    return {part for part in parts if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()}


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(module: Path) -> None:
    room = room_of(module)
    if room in SEES_ALL:
        return
    below = {*ROOMS[: ROOMS.index(room) + 1]} if room in ROOMS else {room, *BESIDE[room]} if room in BESIDE else set()
    assert rooms_imported(module) <= below | FOR_ALL, f"{room} may import only {sorted(below)}"


@pytest.mark.parametrize("module", [m for m in modules() if room_of(m) == "signals"], ids=lambda path: path.name)
def test_signals_import_torch_and_nothing_else(module: Path) -> None:
    for name in imported_names(module):
        top = name.split(".")[0]
        assert top == "torch" or top in sys.stdlib_module_names or name.startswith("dudi_kit.signals"), name


def test_every_part_of_the_house_is_known() -> None:
    found = {room_of(module) for module in modules()} - {"__init__"}
    assert found <= {*ROOMS, *FOR_ALL, *SEES_ALL, *BESIDE}


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "datasets", "pandas", "numpy", "matplotlib", "sklearn", "jinja2", "pydantic")
    loaded = run_python("import sys, dudi_kit.cli; print(*(name.split('.')[0] for name in sys.modules))").split()
    assert not set(heavy) & set(loaded)
