"""The application: which address does what."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from core.serve.errors import Refused, error_body
from core.serve.guard import Guard
from core.serve.limits import Limits
from core.serve.live.events import Hub
from core.serve.live.routes import live_page, live_routes
from core.serve.live.view import View

if TYPE_CHECKING:
    from core.serve.models import AnyShelf

PAGE = Path(__file__).parent / "page"
API = {
    "/metrics": ("metrics", "GET"),
    "/v1/models": ("models", "GET"),
    "/v1/models/{name:path}": ("one_model", "GET"),
    "/v1/chat/completions": ("chat_completions", "POST"),
    "/v1/completions": ("completions", "POST"),
    "/tokenize": ("tokenize", "POST"),
    "/detokenize": ("detokenize", "POST"),
}


def application(
    shelf: AnyShelf,
    limits: Limits,
    *,
    token: str = "",
    hosts: Iterable[str] = (),
    view: View | None = None,
    live_first: bool = False,
) -> Starlette:
    """The ASGI application that offers some models and, with a view, shows runs.

    token, hosts: as for Guard. live_first: whether / is the live page, not the chat page.
    """

    hub = Hub(view) if view else None

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        shelf.start()
        yield
        if view and hub:
            hub.close()
            view.pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(shelf.close)

    routes: list[BaseRoute] = [
        Route("/", live_page if live_first else page),
        Route("/chat", page),
        Mount("/page", StaticFiles(directory=PAGE)),
        Route("/health", health),
        *(Route(path, of_api(name), methods=[method]) for path, (name, method) in API.items()),
        *(live_routes(view, hub, limits) if view and hub else []),
    ]
    guard = Middleware(Guard, limits=limits, token=token, hosts=tuple(hosts))
    handlers: dict[Any, Any] = {Refused: on_refused, HTTPException: on_http, Exception: on_bug}
    app = Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=lifespan)
    app.state.shelf, app.state.limits, app.state.view = shelf, limits, view
    app.state.closing = hub.close if hub else lambda: None
    return app


def of_api(name: str) -> Callable[[Request], Any]:
    """An endpoint of core.serve.api, which is imported at the first request: a server that only shows runs needs no torch."""

    async def endpoint(request: Request) -> Response:
        module = await asyncio.to_thread(importlib.import_module, "core.serve.api")
        answer: Response = await getattr(module, name)(request)
        return answer

    return endpoint


async def page(request: Request) -> Response:
    """GET / or /chat: the chat page."""
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


async def health(request: Request) -> Response:
    """GET /health: whether the server is there."""
    return JSONResponse({"status": "ok"})


async def on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def on_http(request: Request, error: Exception) -> Response:
    """An unknown address, or a method that it does not have."""
    assert isinstance(error, HTTPException)
    words = {404: f"there is nothing at {request.url.path}", 405: f"{request.url.path} does not take {request.method}"}
    message = words.get(error.status_code, str(error.detail))
    return JSONResponse(error_body(message, error.status_code), error.status_code, error.headers)


async def on_bug(request: Request, error: Exception) -> Response:
    """The server's own mistake; its traceback is on the terminal."""
    traceback.print_exception(error)
    return JSONResponse(error_body("the server made a mistake; its terminal says which", 500), 500)
