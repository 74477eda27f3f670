"""Answers to GET as JSON, which are made in threads, and once for all viewers as long as nothing changes."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from core.serve.errors import Refused
from core.serve.live.board import about_board
from core.serve.live.commands import about_again, about_jobs
from core.serve.live.details import about_log, about_run, about_settings
from core.serve.live.drawing import about_bands, about_curves
from core.serve.live.listing import about_lab, about_runs
from core.serve.live.moments import MOST_WAITING, about_moment, about_moments
from core.serve.live.parameters import Parameters
from core.serve.live.samples import about_samples
from core.serve.live.together import about_compare, about_pipeline, about_sweep
from core.serve.live.tokens import is_let_act
from core.serve.live.view import FRESH, View

About = Callable[[View, Parameters], Any]
ANSWERS: dict[str, About] = {
    "lab": about_lab,
    "runs": about_runs,
    "run": about_run,
    "again": about_again,
    "curves": about_curves,
    "bands": about_bands,
    "settings": about_settings,
    "compare": about_compare,
    "pipeline": about_pipeline,
    "sweep": about_sweep,
    "board": about_board,
    "samples": about_samples,
    "log": about_log,
    "jobs": about_jobs,
    "moments": about_moments,
    "moment": about_moment,
}
COMPUTED = "moment"  # by a model, which takes a while
OF_RUNS = ("curves", "bands", "settings", "compare")  # what depends on the runs of its ids alone
GROWING = ("samples", "log", "jobs")  # what changes without the catalog: never kept
MOST_KEPT, LARGEST_KEPT = 256, 1 << 17  # answers, bytes of one


class AnswersKept:
    """The answers of one server. Viewers who ask the same get the same answer."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.kept: OrderedDict[tuple[str, str, bool], tuple[tuple[int, int], bytes]] = OrderedDict()
        self.on_the_way: dict[tuple[str, str, bool], asyncio.Future[bytes]] = {}

    def endpoint(self, name: str) -> Callable[[Request], Any]:
        """The endpoint of one kind of answer."""

        async def endpoint(request: Request) -> Response:
            may_act = is_let_act(self.view, request)
            return as_json(await self.answer(name, request.query_params, may_act=may_act))

        return endpoint

    async def answer(self, name: str, asked: QueryParams, *, may_act: bool) -> bytes:
        """The body of an answer."""
        if not self.view.catalog.is_fresh(FRESH):
            await asyncio.to_thread(self.view.catalog.update, FRESH)
        version, key = self.view.version, (name, str(asked), may_act)
        known = self.kept.get(key)
        if known and (known[0] == version or self.still_holds(name, asked, known[0])):
            self.kept[key] = version, known[1]
            self.kept.move_to_end(key)
            return known[1]
        if (other := self.on_the_way.get(key)) is not None:
            return await asyncio.shield(other)
        if name == COMPUTED and sum(key[0] == COMPUTED for key in self.on_the_way) >= MOST_WAITING:
            raise Refused("too many questions wait; ask again in a moment", status=429, code="busy")
        pool = self.view.pool if name == COMPUTED else None
        task = asyncio.ensure_future(
            asyncio.get_running_loop().run_in_executor(pool, self.made, name, Parameters(asked, may_act=may_act))
        )
        self.on_the_way[key] = task
        try:
            body = await asyncio.shield(task)
        finally:
            if self.on_the_way.get(key) is task:
                del self.on_the_way[key]
        if name not in GROWING and len(body) <= LARGEST_KEPT:
            self.kept[key] = version, body
            while len(self.kept) > MOST_KEPT:
                self.kept.popitem(last=False)
        return body

    def still_holds(self, name: str, asked: QueryParams, version: tuple[int, int]) -> bool:
        """Whether an answer of an older version is about runs that have not changed since, and nothing else."""
        return name in OF_RUNS and self.view.catalog.are_unchanged(asked.getlist("id"), version[0])

    def made(self, name: str, asked: Parameters) -> bytes:
        """The body of an answer, made anew."""
        return encoded(ANSWERS[name](self.view, asked))


def encoded(value: Any) -> bytes:
    """Compact JSON. What JSON has no form for, such as a date in a config, is text; a number that is not finite is a bug here."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
    return text.encode("utf-8", "replace")


def as_json(body: bytes) -> Response:
    return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")
