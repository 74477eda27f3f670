"""The addresses of the live view. Whatever reads files works in threads, so that the event loop is never held up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from core.files import finite
from core.serve.bodies import read
from core.serve.limits import Limits
from core.serve.live.actions import ACTIONS
from core.serve.live.answering import ANSWERS, AnswersKept, as_json, encoded
from core.serve.live.events import SSE, Hub
from core.serve.live.reports import reporting
from core.serve.live.tokens import refuse_without_token
from core.serve.live.view import View

PAGE = Path(__file__).parent / "page"


def live_routes(view: View, hub: Hub, limits: Limits) -> list[BaseRoute]:
    """The routes below /live."""
    answers = AnswersKept(view)
    return [
        Route("/live", live_page),
        *(Route(f"/live/{name}", answers.endpoint(name)) for name in ANSWERS),
        *(Route(f"/live/{name}", acting(view, name, limits), methods=["POST"]) for name in ACTIONS),
        Route("/live/events", streaming(hub)),
        Route("/live/report/{id:path}", reporting(view)),
        Mount("/live/page", StaticFiles(directory=PAGE, check_dir=False)),
    ]


async def live_page(request: Request) -> Response:
    """GET /live: the page."""
    return FileResponse(PAGE / "index.html")


def acting(view: View, name: str, limits: Limits) -> Callable[[Request], Any]:
    """The endpoint of an action."""
    kind, act = ACTIONS[name]

    async def endpoint(request: Request) -> Response:
        refuse_without_token(view, request)
        asked = read(kind, await request.body(), limits)
        return as_json(encoded(finite(await asyncio.to_thread(act, view, asked))))

    return endpoint


def streaming(hub: Hub) -> Callable[[Request], Any]:
    """The endpoint of the events."""

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(hub.events(), headers=SSE, media_type="text/event-stream")

    return endpoint
