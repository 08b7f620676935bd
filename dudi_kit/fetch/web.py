"""Recipes of https servers."""

import http.client
import urllib.error
import urllib.request
from urllib.parse import quote, unquote, urlsplit

from dudi_kit import __version__
from dudi_kit.errors import EnvironmentLack, RecipeError
from dudi_kit.fetch.place import RECIPE_SUFFIXES, BadReference, file_name, too_large

MOST_REDIRECTS = 5
SILENCE = 20
"""Seconds after which a server that says nothing is given up."""

LOCAL = ("localhost", "127.0.0.1", "::1")
"""Hosts that may be asked without encryption."""


class Web:
    """A folder of an https server."""

    notice: str | None = None

    def __init__(self, base: str, name: str) -> None:
        self.base, self.address = base, base + quote(name)

    @classmethod
    def of(cls, reference: str) -> tuple["Web", str]:
        """The folder of a recipe's URL, and the recipe's name in it; BadReference for any other."""
        try:
            url = urlsplit(reference)
            host, _ = url.hostname, url.port  # looked at, since they may be wrong
        except ValueError as error:
            raise BadReference(f"{reference!r}: {error}") from error
        if not _is_safe(url.scheme, host):
            raise BadReference(f"{reference!r}: only https:// and hub: are read (http:// on this machine alone)")
        if url.query or url.fragment or url.username is not None or url.password is not None:
            raise BadReference(f"{reference!r}: a plain address is needed, without '?', '#' and passwords")
        name = file_name(unquote(url.path).removeprefix("/"), reference)
        return cls(f"{url.scheme}://{url.netloc}{url.path.rpartition('/')[0]}/", name), name

    def read(self, path: str, limit: int) -> bytes | None:
        """See `Place`."""
        address = self.base + quote(path)
        request = urllib.request.Request(address, headers={"User-Agent": f"dudi-kit/{__version__}"})  # noqa: S310 – checked in `of`
        opener = urllib.request.build_opener(_SafeRedirects())
        try:
            with opener.open(request, timeout=SILENCE) as response:
                content: bytes = response.read(limit + 1)
                missing, kind = response.length, response.headers.get_content_type()
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                return None
            raise RecipeError(f"{address}: the server answers {error.code} {error.reason}") from error
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise EnvironmentLack(f"{address}: can't be reached: {reason}") from error
        if len(content) > limit:
            raise too_large(address, limit)
        if missing:
            raise EnvironmentLack(f"{address}: the connection broke off. Try again.")
        if kind == "text/html" and path.endswith(RECIPE_SUFFIXES):
            raise RecipeError(f"{address}: is a page for people. Give the address of the raw file.")
        return content


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MOST_REDIRECTS

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]  # urllib's names
        scheme, host = urlsplit(newurl).scheme, urlsplit(newurl).hostname
        from_here = urlsplit(req.full_url).hostname in LOCAL
        if scheme != "https" and not (from_here and _is_safe(scheme, host)):
            raise RecipeError(f"{req.full_url}: leads on to {newurl!r}, and only https is followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_safe(scheme: str, host: str | None) -> bool:
    return bool(host) and (scheme == "https" or (scheme == "http" and host in LOCAL))
