"""Who may ask, and how much: checks of every request before the application sees it.

A page on the internet must not reach the models through its reader's browser: requests for another host name (DNS
rebinding), from pages of another origin, and for their pictures, scripts and frames are refused. Off this machine a token is required.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.serve.errors import Refused
from core.serve.limits import Limits

OPEN = ("/", "/chat", "/live", "/health")  # without a token: what holds nothing of the user's
OPEN_FOLDERS = ("/page/", "/live/page/", "/live/report/")  # the last one asks for a key of its own
PAGES = ("/", "/chat", "/live")  # what a link on another site may lead to
READ_OFF = 8  # times the limit of a body
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # else scripts of an older version mix with new ones
}


def shows(headers: Headers, token: str) -> bool:
    """Whether a request shows a token. It is compared in constant time."""
    given = headers.get("authorization", "").removeprefix("Bearer ").strip()
    return hmac.compare_digest(given.encode(), token.encode())


class Guard:
    """ASGI middleware. token: what clients must show; "" for none. hosts: names besides those of this machine."""

    def __init__(self, app: ASGIApp, *, limits: Limits, token: str = "", hosts: Iterable[str] = ()) -> None:
        self.app, self.limits, self.token = app, limits, token
        self.hosts = {"localhost", socket.gethostname().lower(), *(name.lower() for name in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    given.setdefault(name, value)
            await send(message)

        try:
            self.check(Headers(scope=scope), scope["path"])
        except Refused as error:
            if error.status == 413 and "expect" not in Headers(scope=scope):
                await self.read_off(receive)
            await error.response(scope, receive, send_guarded)
            return
        await self.app(scope, self.limited(receive), send_guarded)

    def check(self, headers: Headers, path: str) -> None:
        """Raise Refused for a request that is not let in."""
        host = headers.get("host", "")
        if not self.is_known(host):
            raise Refused(
                f"this server does not answer to the host name {host[:100]!r}", status=403, code="host_not_allowed"
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Refused(f"pages of {origin[:100]!r} may not use this server", status=403, code="origin_not_allowed")
        is_link = path in PAGES and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link:
            raise Refused("pages of other sites may not use this server", status=403, code="origin_not_allowed")
        is_open = path in OPEN or path.startswith(OPEN_FOLDERS)
        if self.token and not is_open and not shows(headers, self.token):
            raise Refused(
                "the token is missing or wrong: send `Authorization: Bearer TOKEN`",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.limits.body:
            raise self.too_large()

    def is_known(self, host: str) -> bool:
        """Whether a Host header names this machine: an address, which no other name leads to, or a name that we know."""
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") <= 1:
            name = name.partition(":")[0]
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name in self.hosts

    def limited(self, receive: Receive) -> Receive:
        """`receive`, which raises Refused for a body that is too large or comes too slowly."""
        size, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self.limits.reading

        async def receive_some() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            left = deadline - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except asyncio.TimeoutError:
                raise Refused("the request came too slowly", status=408, code="timeout") from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > self.limits.body:
                if not complete:
                    await self.read_off(receive)
                raise self.too_large()
            return message

        return receive_some

    async def read_off(self, receive: Receive) -> None:
        """Read what is left of a body that is too large, up to a few times the limit, for some seconds.

        A client that is still sending when the connection is closed does not see the answer.
        """

        async def read() -> None:
            left = READ_OFF * self.limits.body
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(read(), self.limits.reading)

    def too_large(self) -> Refused:
        message = f"the body is larger than {self.limits.body:,} bytes"
        return Refused(message, status=413, code="body_too_large", headers={"Connection": "close"})
