"""A server for tests, in a thread of this process: its address, and raw requests to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from conftest import PREPARE, TINY
from preparing import write
from starlette.types import ASGIApp

from core import open_experiment
from core.serve.app import application
from core.serve.limits import Limits
from core.serve.models import Shelf, open_models
from core.serve.server import connection_type

TALKER = """from core import Conversation, Message

WORDS = "moss fern snail äpfel pond".split()


def documents(rng):
    while True:
        words = rng.choices(WORDS, k=rng.randint(1, 3))
        answer = "You said: " + ", ".join(words) + "."
        yield Conversation([Message("user", " ".join(words)), Message("assistant", answer)])
"""
CHAT = (
    TINY.replace("[prepare]\nsize = 2000", '[prepare]\nsize = 8000\nspecial_tokens = "chat"')
    .replace("n_embd = 16", "n_embd = 32")
    .replace("block_size = 16", "block_size = 96")
)


@contextmanager
def trained_lab(folder: Path) -> Iterator[Path]:
    """A folder with two trained experiments, as the current one: `talker` chats, `spaces` completes."""
    talker = write(folder / "experiments" / "talker", TALKER, CHAT)
    open_experiment(str(talker), {"train.schedule.max_iters": 60}).train()
    open_experiment(str(write(folder / "experiments" / "spaces", PREPARE, TINY))).train()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("TERRARIUM_EXPERIMENTS", raising=False)
        yield folder


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
    with listening(application(shelf, limits, **guard), limits) as port:
        yield Running(shelf, port)


@contextmanager
def listening(app: ASGIApp, limits: Limits) -> Iterator[int]:
    """An application on a port of 127.0.0.1, in a thread."""
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
        yield found.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        found.close()
