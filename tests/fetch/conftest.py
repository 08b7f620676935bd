"""Servers of this machine that stand in for the web and the hub."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"

Answer = bytes | Callable[[BaseHTTPRequestHandler], None]


class Site:
    """What a server has, by path, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.address = ""

    def put(self, **files: str) -> None:
        """Recipes by name."""
        self.files.update({f"/{name}.yaml": text.encode() for name, text in files.items()})


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        self.site.asked.append(self.path)
        answer = self.site.files.get(self.path)
        if callable(answer):
            answer(self)
        elif answer is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")  # as the hub says it
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.reply(answer)

    def do_HEAD(self) -> None:
        self.do_GET()

    def reply(self, content: bytes) -> None:
        self.send_response(200)
        if "/resolve/" in self.path:  # as the hub says what a file is
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", hashlib.sha256(content).hexdigest())
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site on a port of its own, an empty cache, and an empty current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DUDI_KIT_CACHE", str(tmp_path / "cache"))
    made = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": made}))
    made.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
