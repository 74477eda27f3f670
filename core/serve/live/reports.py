"""The reports of runs and sweeps: pages with headers that let them do nothing."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from core.serve.errors import Refused
from core.serve.live.targets import find_target
from core.serve.live.view import View

REPORT = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
}
LARGEST_REPORT = 64 << 20  # bytes


def reporting(view: View) -> Callable[[Request], Any]:
    """The endpoint of reports."""

    async def endpoint(request: Request) -> Response:
        id = request.path_params["id"]
        given = request.query_params.get("key", "")
        if view.asked_for and not hmac.compare_digest(given.encode(), view.key_of(id).encode()):
            raise Refused("the key of this report is missing or wrong", status=401, code="invalid_api_key")
        return Response(await asyncio.to_thread(report_of, view, id), 200, REPORT, "text/html")

    return endpoint


def report_of(view: View, id: str) -> bytes:
    """The page in the folder of a run, a run with stages or a sweep. Raises Refused."""
    target = find_target(view.catalog, id)
    try:
        with target.place.lab.open(target.folder / "report.html") as file:
            page = file.read(LARGEST_REPORT + 1)
    except OSError:
        page = b""
    if not 0 < len(page) <= LARGEST_REPORT:
        raise Refused(f"{id[:200]!r} has no report", status=404, param="id", code="no_report")
    return page
