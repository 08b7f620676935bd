"""Recipes in repositories of the hub."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import DryRunFileInfo, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
)

from dudi_kit.errors import EnvironmentLack, RecipeError
from dudi_kit.fetch.place import BadReference, file_name, too_large

HUB = re.compile(
    r"hub:(?:(?P<kind>models|datasets|spaces)/)?(?P<repo>[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*)"
    r"/(?P<path>[^@\s]+)(?:@(?P<revision>[\w./-]+))?"
)
COMMIT = re.compile(r"[0-9a-f]{40}")


class Hub:
    """A folder of a repository on the hub, at a commit."""

    def __init__(self, repo: str, kind: str | None, folder: str, name: str, revision: str | None) -> None:
        self.repo, self.kind, self.folder = repo, kind, folder
        self.commit = revision or "main"
        prefix = f"{kind}s/" if kind else ""
        self.base = f"hub:{prefix}{repo}/{folder}"
        self.address = f"{self.base}{name}@{self.commit}"
        self.notice: str | None = None
        facts = self._facts(name)
        if facts is None:
            raise RecipeError(f"{self.address}: there is no such file. {self._hint()}")
        self.commit = facts.commit_hash
        self.address = f"{self.base}{name}@{self.commit}"
        if revision is None or not COMMIT.fullmatch(revision):
            given = f"revision {revision!r} is no commit" if revision else "no revision is given"
            self.notice = f"{given}, so this may change; pinned, it is {self.address}"

    @classmethod
    def of(cls, reference: str) -> tuple["Hub", str]:
        """The folder of a recipe's reference, and the recipe's name in it; BadReference for a text that is none."""
        found = HUB.fullmatch(reference)
        if found is None:
            raise BadReference(
                f"{reference!r}: hub:owner/name/path/recipe.yaml@revision expected; hub:datasets/owner/name/… for the "
                "repository of a dataset"
            )
        name = file_name(found["path"], reference)
        kind = found["kind"].removesuffix("s") if found["kind"] else None
        folder = found["path"].removesuffix(name)
        return cls(found["repo"], None if kind == "model" else kind, folder, name, found["revision"]), name

    def read(self, path: str, limit: int) -> bytes | None:
        """See `Place`."""
        facts = self._facts(path)
        if facts is None:
            return None
        if facts.file_size is not None and facts.file_size > limit:
            raise too_large(f"{self.base}{path}@{self.commit}", limit)
        with self._explained(path):
            file = hf_hub_download(self.repo, self.folder + path, repo_type=self.kind, revision=self.commit)
        return Path(file).read_bytes()

    def _facts(self, path: str) -> DryRunFileInfo | None:
        """Commit and size of a file; None where there is none."""
        with self._explained(path):
            try:
                return hf_hub_download(
                    self.repo, self.folder + path, repo_type=self.kind, revision=self.commit, dry_run=True
                )
            except RemoteEntryNotFoundError:
                return None

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        """What the hub's client raises, in our words."""
        try:
            yield
        except LocalEntryNotFoundError as error:
            raise EnvironmentLack(
                f"{self.address}: the hub can't be reached, and the local cache does not hold {path}."
            ) from error
        except (HfHubHTTPError, HFValidationError) as error:
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise RecipeError(f"{self.address}: {first} {self._hint()}") from error

    def _hint(self) -> str:
        if self.kind is None:
            return "Is the name right? In the repository of a dataset it is hub:datasets/owner/name/…"
        return "Is the name right?"
