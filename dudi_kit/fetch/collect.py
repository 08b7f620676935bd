"""Recipes by reference: `https://host/dir/x.yaml` and `hub:owner/repo/dir/x.yaml@revision`, copied into a cache.

The recipe, the parents that it extends, the recipes, templates and data files that it names below its own folder are
fetched; what it names elsewhere is left alone, and refused when it is loaded (`recipe.confine`). The copies lie in a
folder that is named by the hash of all of them: what was read once can't change under a run.

The only part that speaks to the network before torch is imported. It executes nothing and expands no variables.
"""

import hashlib
import json
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from dudi_kit.errors import EnvironmentLack, RecipeError
from dudi_kit.fetch.place import Place
from dudi_kit.fetch.web import Web
from dudi_kit.recipe.compose import MOST_PARENTS, Overrides, compose
from dudi_kit.recipe.confine import is_address, is_inside, named_files
from dudi_kit.recipe.diagnostics import InvalidRecipeError
from dudi_kit.recipe.yaml_nodes import LARGEST_FILE, Source, lines_of, read_yaml

LARGEST = 32 << 20
"""Bytes of one data file. Larger data belongs on the hub."""

LARGEST_IN_ALL = 128 << 20
MOST_FILES = 100
SECONDS = 60
"""For one file, connection and all."""

T = TypeVar("T")


@dataclass(frozen=True)
class Fetched:
    """A recipe and what it needs, in the cache."""

    address: str
    """Where it came from, pinned where it can be."""

    base: str
    """The address of its folder, with the last slash."""

    file: Path
    root: Path
    """The folder: all that the recipe may read of this machine."""

    sums: dict[str, str]
    """sha256 of each file, by its path in the folder; the recipe is the first."""

    notice: str | None = None
    """What the user should know about the address."""


def fetch(reference: str, overrides: Overrides = ()) -> Fetched:
    """Copy a recipe, and what it names below its folder, into the cache.

    overrides: as for `load_recipe`; a file that they replace is not fetched.
    Raises BadReference; RecipeError where there is no such recipe, or where it is too large; EnvironmentLack where the
    network or the disk is the reason.
    """
    place, name = _place(reference)
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as folder:
            fetching = _Fetching(place, Path(folder).resolve() / "files")
            fetching.recipe(name, overrides)
            if name not in fetching.sums:
                raise RecipeError(f"{place.address}: there is no such file. Is the address right?")
            root = _publish(fetching, cache)
    except OSError as error:
        raise EnvironmentLack(
            f"can't keep {place.address} in {cache}: {error.strerror or error}. DUDI_KIT_CACHE names another folder."
        ) from error
    return Fetched(place.address, place.base, root / name, root, fetching.sums, place.notice)


def cache_folder() -> Path:
    """Where fetched recipes lie: $DUDI_KIT_CACHE, or dudi-kit in the user's cache folder."""
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DUDI_KIT_CACHE") or Path(users) / "dudi-kit").absolute() / "recipes"


@dataclass
class _Fetching:
    """The files of one recipe on their way into `folder`."""

    place: Place
    folder: Path
    sums: dict[str, str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    size: int = 0

    def recipe(self, path: str, overrides: Overrides = ()) -> None:
        """A recipe, its parents, and the files that they name together."""
        if not self.chain(path):
            return
        try:
            tree = compose(self.folder / path, overrides, self.folder).root
        except InvalidRecipeError:
            return  # what is wrong with it is told when it is loaded
        for named in named_files(tree, self.folder):
            if named.is_recipe:
                self.recipe(named.path)
            else:
                self.file(named.path, LARGEST)

    def chain(self, path: str) -> bool:
        """A recipe file and its parents, as far as they stay in the folder; whether any of it is new."""
        is_new = False
        for _ in range(MOST_PARENTS + 1):
            if not self.file(path, LARGEST_FILE):
                break
            is_new = True
            parent = _parent_of(self.folder / path, self.folder)
            if parent is None:
                break
            path = parent
        return is_new

    def file(self, path: str, limit: int) -> bool:
        """One file; False where it was asked for already, or is not there."""
        if path in self.asked:
            return False
        self.asked.add(path)
        if len(self.asked) > MOST_FILES:
            raise RecipeError(f"{self.place.address}: names more than {MOST_FILES} files; put its data on the hub.")
        content = within(SECONDS, lambda: self.place.read(path, limit), f"{self.place.base}{path}")
        if content is None:
            return False
        self.size += len(content)
        if self.size > LARGEST_IN_ALL:
            raise RecipeError(
                f"{self.place.address}: its files have more than {LARGEST_IN_ALL >> 20} MiB; put its data on the hub."
            )
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        self.sums[path] = hashlib.sha256(content).hexdigest()
        return True


def _parent_of(file: Path, root: Path) -> str | None:
    """The path in `root` of what a recipe extends, if that is a path there."""
    try:
        text = file.read_text(encoding="utf-8")
        tree = read_yaml(text, Source(str(file), file.parent, lines_of(text))).root
    except (InvalidRecipeError, UnicodeDecodeError):
        return None
    extends = tree.child("extends")
    written = extends.value if extends else None
    if (
        not isinstance(written, str)
        or is_address(written)
        or not is_inside(str(file.parent / written), root, written=written)
    ):
        return None
    return os.path.relpath(file.parent / written, root)


def _publish(fetching: _Fetching, cache: Path) -> Path:
    """The files under the name of their hash. A folder that is there is used if it is whole, else replaced."""
    # The base is a part of it: a folder is never shared by recipes of two origins, and messages can name the origin.
    facts = json.dumps([fetching.place.base, sorted(fetching.sums.items())]).encode()
    root = cache / hashlib.sha256(facts).hexdigest()[:32]
    if _sums(root) != fetching.sums:
        shutil.rmtree(root, ignore_errors=True)
        fetching.folder.rename(root)
    return root.resolve()


def _sums(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if not path.is_dir() or path.is_symlink())
    # A link is no file of ours.
    return {
        str(path.relative_to(root)): "" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def within(seconds: float, work: Callable[[], T], what: str) -> T:
    """The result of `work`, or EnvironmentLack after so many seconds; a socket's timeout bounds no slow server."""
    results: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def attempt() -> None:
        try:
            results.put((work(), None))
        except BaseException as error:  # raised again by the one who waits
            results.put((None, error))

    threading.Thread(target=attempt, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise EnvironmentLack(
            f"{what}: not here after {seconds} seconds. Try again, or copy it to your disk."
        ) from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # with no error, it is what `work` returned


def _place(reference: str) -> tuple[Place, str]:
    """Where the recipe's folder is, and the recipe's file name in it."""
    if reference.startswith("hub:"):
        from dudi_kit.fetch.hub import Hub  # its client takes a while to import

        return within(SECONDS, lambda: Hub.of(reference), reference)
    return Web.of(reference)
