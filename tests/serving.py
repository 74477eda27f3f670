"""A server for tests, in a thread of this process: its address, and raw requests to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from core.serve.app import application
from core.serve.limits import Limits
from core.serve.models import Shelf, open_models
from core.serve.server import connection_type


@dataclass(frozen=True)
class Answer:
    """status, headers and body of an HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error."""
        return str(self.json["error"]["message"])

    @property
    def events(self) -> list[Any]:
        """The JSON of each event of a stream, without the last one, [DONE]."""
        lines = [line.removeprefix("data: ") for line in self.body.decode().split("\n\n") if line]
        assert lines[-1] == "[DONE]", lines
        return [json.loads(line) for line in lines[:-1]]


@dataclass(frozen=True)
class Running:
    """A server. shelf: its models. port: on 127.0.0.1."""

    shelf: Shelf
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Any = None, *, method: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request. body: bytes, or what becomes JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method or ("GET" if data is None else "POST"), path, data, dict(headers or {}))
            found = connection.getresponse()
            return Answer(found.status, dict(found.getheaders()), found.read())
        finally:
            connection.close()

    def chat(self, text: str, **fields: Any) -> Answer:
        """Ask the first model that can chat, greedily."""
        model = next(served.name for served in self.shelf.models if served.can_chat)
        body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0}
        return self.ask("/v1/chat/completions", body | fields)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextmanager
def serving(names: list[str], limits: Limits | None = None, **guard: Any) -> Iterator[Running]:
    """A server of these models. guard: token and hosts."""
    limits = limits or Limits()
    shelf = open_models(names, "", (), limits)
    app = application(shelf, limits, **guard)
    config = uvicorn.Config(
        app, http=connection_type(limits), ws="none", lifespan="on", log_level="critical", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen(128)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [found]})
    thread.start()
    try:
        yield Running(shelf, found.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        found.close()
