"""Where a recipe's files come from: what a web server and the hub have in common."""

from typing import Protocol

from dudi_kit.errors import Exit, RecipeError

RECIPE_SUFFIXES = (".yaml", ".yml")


class BadReference(RecipeError):
    """What was given is no address of a recipe."""

    exit_code = Exit.USAGE


class Place(Protocol):
    """Where files come from."""

    address: str
    base: str
    notice: str | None

    def read(self, path: str, limit: int) -> bytes | None:
        """A file by its path in the recipe's folder; None where there is none. RecipeError: over `limit` bytes."""


def file_name(path: str, reference: str) -> str:
    """The path's last part, a plain file name of a recipe; BadReference where it is none."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\\" in part or not part.isprintable() for part in parts):
        raise BadReference(f"{reference!r}: {path!r} is no plain path of a file")
    if not parts[-1].endswith(RECIPE_SUFFIXES):
        raise BadReference(f"{reference!r}: a recipe's name ends in .yaml")
    return parts[-1]


def too_large(address: str, limit: int) -> RecipeError:
    """What to raise for a file over the limit, in bytes."""
    return RecipeError(f"{address}: larger than {limit:,} bytes, the most that is fetched. Put large data on the hub.")
