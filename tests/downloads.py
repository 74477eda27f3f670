"""What the tests of downloads share: a server on this machine that fails in the ways that real ones do."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

CONTENT = bytes(range(256)) * 1000


@dataclass
class Failing:
    """What a path answers, request by request; the last entry for all further ones.

    An entry is an HTTP error's number, a number of bytes after which the connection breaks off (as {"after": 1000}), {"hang": seconds}
    before the first byte, or None for all that is asked. content: of the file. ranges: it can send parts. tag: its ETag.
    """

    answers: list[Any] = field(default_factory=lambda: [None])
    content: bytes = CONTENT
    ranges: bool = True
    tag: str = '"one"'
    headers: dict[str, str] = field(default_factory=dict)
    moved: str = ""  # where else it is
    asked: list[dict[str, str]] = field(default_factory=list)  # headers of the requests


class Server(http.server.ThreadingHTTPServer):
    """files: by their paths, such as /file."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Failing] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def has(self, path: str, **options: Any) -> tuple[str, Failing]:
        """Offer a file. Returns its address, and what is asked of it."""
        self.files[path] = Failing(**options)
        return f"{self.url}{path}", self.files[path]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers from the server's files; all else is missing."""

    server: Server

    def do_GET(self) -> None:
        file = self.server.files.get(self.path)
        if file is None:
            self.send_error(404)
            return
        file.asked.append(dict(self.headers))
        if file.moved:
            self.send_response(302)
            self.send_header("Location", file.moved)
            self.end_headers()
            return
        answer = file.answers[min(len(file.asked), len(file.answers)) - 1]
        if isinstance(answer, int):
            self.send_response(answer)
            for name, value in file.headers.items():
                self.send_header(name, value)
            self.end_headers()
            return
        how = answer or {}
        time.sleep(how.get("hang", 0))
        begin = 0
        if file.ranges and "Range" in self.headers and self.headers["If-Range"] == file.tag:
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if begin > len(file.content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            place = f"bytes {begin + how.get('wrong', 0)}-{len(file.content) - 1}/{len(file.content)}"
            self.send_header("Content-Range", place)
        if file.tag:
            self.send_header("ETag", file.tag)
        if not how.get("chunked"):
            self.send_header("Content-Length", str(len(file.content) - begin))
        self.end_headers()
        end = begin + how["after"] if "after" in how else len(file.content)
        with contextlib.suppress(OSError):  # the client may be gone
            self.wfile.write(file.content[begin:end])

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server while the context lasts."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
