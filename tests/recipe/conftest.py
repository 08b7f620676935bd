from collections.abc import Callable
from pathlib import Path

import pytest

from dudi_kit.recipe.load import LoadedRecipe, load_recipe

MINIMAL = """\
name: small
teacher: {model: ./teacher}
student: {model: ./student}
data:
  train:
    corpus: {builtin: train}
"""

Load = Callable[..., LoadedRecipe]


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    """The smallest recipe that trains with every signal."""
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


@pytest.fixture
def load(tmp_path: Path, minimal: Path) -> Load:
    """Load a recipe given as text; `minimal.yaml` lies beside it, other files are given by name."""

    def load_text(text: str, overrides: tuple[tuple[str, str], ...] = (), **files: str) -> LoadedRecipe:
        for name, content in files.items():
            (tmp_path / f"{name}.yaml").write_text(content, encoding="utf-8")
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(path, overrides)

    return load_text
