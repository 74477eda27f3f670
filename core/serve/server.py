"""The server process: a socket, connections that are closed when nothing comes, and the end at a signal."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from core import process
from core.errors import UserError
from core.serve.limits import Limits

TURNED_AWAY = 64  # connections more than may be, which are told so; others are closed at once
FILES = 512  # that a server may have open besides its connections
WORDS = b'{"error": {"message": "too many connections are open; try again in a moment", "type": "server_error", "param": null, "code": "busy"}}'
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 5\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(WORDS), WORDS)
)


@dataclass(frozen=True)
class Address:
    """Where a server listens. port 0: a free one. hosts: names, besides this machine's, that clients may call it by."""

    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Site:
    """What is served. token: what the page must have, "" for nothing. models: names of models that are open from the start.

    told: what is served, in words. closing: called when the end is near, to end answers that would go on for ever. going_on: what
    goes on without the server, in words.
    """

    app: ASGIApp
    token: str
    models: list[str]
    told: str
    closing: Callable[[], object] = lambda: None
    going_on: Callable[[], str] = lambda: ""


def serve(site: Site, address: Address, limits: Limits, listening: Callable[[str], object]) -> int:
    """Answer requests until SIGINT or SIGTERM comes. Returns its number.

    listening: called once with the address to open in a browser, which holds the token. Raises UserError for an address that
    cannot be used.
    """
    found = listener(address)
    host, port = found.getsockname()[:2]
    config = uvicorn.Config(
        site.app,
        http=connection_type(limits),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
    )
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # what listens everywhere is opened here
    shown = f"[{own}]" if ":" in own else own
    allow_files(limits.connections + FILES)
    with process.noting_signals() as stop:  # from before the address is told: who reads it may stop the server at once
        listening(f"http://{shown}:{port}/" + (f"#token={site.token}" if site.token else ""))
        Server(config, stop, site.closing).run(sockets=[found])
    return stop.number


class Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to us."""

    def __init__(self, config: uvicorn.Config, stop: process.StopRequest, closing: Callable[[], object]) -> None:
        super().__init__(config)
        self.stop, self.closing = stop, closing

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        ends = await super().on_tick(counter) or self.stop.number > 0
        if ends:
            self.closing()  # before uvicorn waits for answers on their way
        return ends


def allow_files(number: int) -> None:
    """Let this process open so many files, as far as the system lets it: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def listener(address: Address) -> socket.socket:
    """A socket that listens. Raises UserError if the address is taken, or is not of this machine."""
    place = f"{address.host}:{address.port}"
    try:
        family, kind, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
        found.listen(128)
    except OSError as error:
        remedy = (
            "Choose another port; 0 takes a free one."
            if address.host in ("127.0.0.1", "localhost")
            else "Choose another address or port."
        )
        raise UserError(f"cannot listen there: {error.strerror}", place=place, remedy=remedy) from None
    return found


def connection_type(limits: Limits) -> type[H11Protocol]:
    """A connection that is closed if a request does not come in time, if an answer is not read, or if there are too many."""

    class Connection(H11Protocol):
        silent: asyncio.TimerHandle | None = None  # runs while a request is awaited
        watch: asyncio.TimerHandle | None = None
        is_one_too_many = False
        unread = 0  # bytes that the client had not taken at the last look

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections + TURNED_AWAY:
                transport.abort()
                return
            self.is_one_too_many = len(self.connections) > limits.connections
            self.silent = self.loop.call_later(limits.reading, self.close_if_silent)
            self.watch = self.loop.call_later(limits.sending, self.close_if_unread)

        def data_received(self, data: bytes) -> None:
            if self.is_one_too_many:
                self.transport.write(FULL)
                self.transport.close()
                return
            super().data_received(data)
            if self.is_answering and self.silent is not None:
                self.silent.cancel()
                self.silent = None
            elif not self.is_answering and self.silent is None:  # the beginning of another request
                self.silent = self.loop.call_later(limits.reading, self.close_if_silent)

        @property
        def is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def close_if_silent(self) -> None:
            self.silent = None
            if not self.is_answering:
                self.transport.abort()

        def close_if_unread(self) -> None:
            """Abort if the client has taken nothing since the last look; `close` would wait for it."""
            unread = self.transport.get_write_buffer_size()
            if 0 < self.unread <= unread:
                self.transport.abort()
                return
            self.unread = unread
            self.watch = self.loop.call_later(limits.sending, self.close_if_unread)

        def connection_lost(self, error: Exception | None) -> None:
            for timer in (self.silent, self.watch):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(error)

    return Connection
