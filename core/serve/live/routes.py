"""The addresses of the live view. Whatever reads files works in threads, so that the event loop is never held up."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from core.serve.errors import Refused
from core.serve.live.asked import Asked
from core.serve.live.details import about_run, about_settings
from core.serve.live.drawing import about_bands, about_curves
from core.serve.live.listing import about_lab, about_runs
from core.serve.live.view import View

PAGE = Path(__file__).parent / "page"
About = Callable[[View, Asked], Any]
ANSWERS: dict[str, About] = {
    "lab": about_lab,
    "runs": about_runs,
    "run": about_run,
    "curves": about_curves,
    "bands": about_bands,
    "settings": about_settings,
}


def live_routes(view: View) -> list[BaseRoute]:
    """The routes below /live."""
    routes: list[BaseRoute] = [Route(f"/live/{name}", answering(view, about)) for name, about in ANSWERS.items()]
    return [Route("/live", live_page), *routes, Mount("/live/page", StaticFiles(directory=PAGE, check_dir=False))]


async def live_page(request: Request) -> Response:
    """GET /live: the page."""
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


def answering(view: View, about: About) -> Callable[[Request], Any]:
    """An endpoint that answers with JSON."""

    async def endpoint(request: Request) -> Response:
        return await asyncio.to_thread(answer, view, about, Asked(request.query_params))

    return endpoint


def answer(view: View, about: About, asked: Asked) -> Response:
    """An answer as JSON."""
    return as_json(about(view, asked))


def as_json(value: Any, status: int = 200) -> Response:
    """Compact JSON. A number that is not finite is a bug here, as JSON has none."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, {"Cache-Control": "no-store"}, "application/json")


def refuse_without_token(view: View, request: Request) -> None:
    """Raise Refused for an action in a view that only shows, or without the token."""
    if view.read_only:
        raise Refused("this server only shows: nothing can be changed here", status=403, code="read_only")
    given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if not view.token or not hmac.compare_digest(given.encode(), view.token.encode()):
        raise Refused(
            "the token is missing or wrong: open the address that the server has printed, or send `Authorization: Bearer TOKEN`",
            status=401,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
